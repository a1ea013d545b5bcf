//! Writes who takes part in a trial to a directory: `cast DIRECTORY`. A target's script registers them with its server.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use countersign_conformance::cast::Cast;

#[expect(clippy::disallowed_methods, reason = "certificates are made for the time at which the program runs")]
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.ok().and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or_default()
}

#[expect(clippy::print_stderr, reason = "it is where a command line complains")]
fn main() -> ExitCode {
    let Some(directory) = std::env::args_os().nth(1) else {
        eprintln!("usage: cast DIRECTORY");
        return ExitCode::from(2);
    };
    match Cast::at(now()).write(Path::new(&directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", Path::new(&directory).display());
            ExitCode::from(2)
        }
    }
}
