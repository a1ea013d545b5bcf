//! Parses the command line, runs it, turns an error into an exit code.

#[doc(hidden)]
fn main() {}
