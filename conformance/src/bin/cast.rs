//! Writes who takes part in a trial to a directory: `cast DIRECTORY`. A target's script registers them with its server.

use std::path::Path;
use std::process::ExitCode;

use countersign_conformance::cast::Cast;
use countersign_conformance::clock;

#[expect(clippy::print_stderr, reason = "it is where a command line complains")]
fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: cast DIRECTORY");
        return ExitCode::from(2);
    };
    match Cast::at(clock::now()).write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", Path::new(&directory).display());
            ExitCode::from(2)
        }
    }
}
