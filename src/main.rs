//! Parses, runs, picks the exit code; all of it in [`cohortd::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    cohortd::cli::main()
}
