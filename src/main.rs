//! Parses the command line, runs it, turns an error into an exit code.

use tikv_jemallocator::Jemalloc;

/// Every token request makes some hundred small allocations on one thread that are freed on another.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> std::process::ExitCode {
    countersign::cli::run()
}
