//! What a test needs of the Python Package Index.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What pip says when it cannot reach its index.
const UNREACHED: [&str; 4] = [
    "Failed to establish a new connection",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Network is unreachable",
];

/// A Python of its own with these packages, in the folder; its interpreter. `None`: there is no Python or pip on this machine, or
/// no way to the index, and `what` cannot be shown; that is said.
pub fn with(folder: &Path, packages: &[&str], what: &str) -> Option<PathBuf> {
    let environment = folder.join("python");
    let is_there = Command::new("python3").args(["-m", "venv"]).arg(&environment).output();
    let is_there = is_there.is_ok_and(|made| made.status.success())
        && install(&environment.join("bin/pip"), packages);
    if !is_there {
        // Past the capture of tests that pass.
        let line =
            format!("SKIPPED: {what}: there is no Python with pip, or no way to its index\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    is_there.then(|| environment.join("bin/python"))
}

fn install(pip: &Path, packages: &[&str]) -> bool {
    let install = ["install", "--quiet", "--disable-pip-version-check", "--retries", "0"];
    let output = Command::new(pip).args(install).args(packages).output().expect("pip is there");
    let complaint = String::from_utf8_lossy(&output.stderr);
    let unreached = UNREACHED.iter().any(|words| complaint.contains(words));
    assert!(output.status.success() || unreached, "{complaint}");
    output.status.success()
}
