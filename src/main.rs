//! Parses, runs, picks the exit code; all of it in [`cohortd::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    // Fails only if there is one already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    cohortd::cli::main()
}
