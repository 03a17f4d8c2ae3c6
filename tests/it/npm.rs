//! What a test needs of the npm registry.

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// What npm says when it cannot reach its registry.
const UNREACHED: [&str; 5] = ["ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH"];

/// Writes the files into the folder and installs what their `package.json` names. `false`: there is no
/// npm on this machine, or no way to its registry, and `what` cannot be shown; that is said.
pub fn installed(folder: &Path, files: &[(&str, &str)], what: &str) -> bool {
    let is_there = Command::new("npm").arg("--version").output().is_ok() && install(folder, files);
    if !is_there {
        // Past the capture of tests that pass.
        let line = format!("SKIPPED: {what}: there is no npm, or no way to its registry\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
    is_there
}

fn install(folder: &Path, files: &[(&str, &str)]) -> bool {
    for (name, text) in files {
        std::fs::write(folder.join(name), text).expect("it is ours");
    }
    let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0"];
    let output = Command::new("npm").args(install).current_dir(folder).output();
    let output = output.expect("npm is there");
    let complaint = String::from_utf8_lossy(&output.stderr);
    let unreached = UNREACHED.iter().any(|code| complaint.contains(code));
    assert!(output.status.success() || unreached, "{complaint}");
    output.status.success()
}
