//! The entry point. Parsing, running and choosing the exit code are all in [`cohortd::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    cohortd::cli::main()
}
