//! Packages from the npm registry that tests use.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::needs::{Lack, Remedy, installed};

/// Drives a browser for the dashboard's tests.
pub static DASHBOARD: Packages = Packages {
    name: "dashboard",
    files: &[
        ("package.json", include_str!("../dashboard/package.json")),
        ("browser.mjs", include_str!("../dashboard/browser.mjs")),
    ],
};

/// Segment's SDKs for Node.js and web pages.
pub static SEGMENT: Packages = Packages {
    name: "sdk",
    files: &[
        ("package.json", include_str!("../sdk/package.json")),
        ("flush.mjs", include_str!("../sdk/flush.mjs")),
        ("browser.mjs", include_str!("../sdk/browser.mjs")),
    ],
};

/// A folder with these files and the dependencies that the first of them, `package.json`, names; kept
/// between runs.
pub struct Packages {
    name: &'static str,
    files: &'static [(&'static str, &'static str)],
}

impl Packages {
    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(self.name)
    }

    /// Runs Node.js in the folder, with these arguments.
    pub fn node<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = Command::new("node");
        command.args(words).current_dir(self.folder());
        command
    }

    pub fn install(&self) -> Result<(), Lack> {
        installed("npm", "nodejs npm")?;
        installed("node", "nodejs npm")?;
        let folder = self.folder();
        std::fs::create_dir_all(&folder).expect("it is ours");
        for (name, text) in self.files {
            std::fs::write(folder.join(name), text).expect("it is ours");
        }
        let (_, wanted) = self.files[0];
        let done = folder.join("installed");
        if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
            return Ok(());
        }
        let patience = ["--fetch-retries=0", "--fetch-timeout=60000"];
        let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts"];
        let output = Command::new("npm").args(install).args(patience).current_dir(folder).output();
        let output = output.expect("npm is there");
        if output.status.success() {
            std::fs::write(done, wanted).expect("it is ours");
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let line = complaint.lines().next().unwrap_or("it does not say why");
        Err(Lack {
            why: format!("npm cannot install tests/{}/package.json ({line})", self.name),
            remedy: Remedy::Other("a registry that npm reaches (npm config set registry URL)"),
        })
    }
}
