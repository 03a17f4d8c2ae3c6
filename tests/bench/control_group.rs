//! A memory limit for the daemon, page cache included, where the system lets us set one.

use std::path::{Path, PathBuf};

const LIMIT_MIB: u64 = 256;

/// A control group with a memory limit, of either version; gone when it is dropped.
pub struct ControlGroup(Option<PathBuf>);

impl ControlGroup {
    pub fn make() -> Self {
        let name = format!("cohortd-bench-{}", std::process::id());
        let limit = (LIMIT_MIB << 20).to_string();
        for (root, file) in
            [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]
        {
            let path = Path::new(root).join(&name);
            if std::fs::create_dir(&path).is_err() {
                continue;
            }
            if std::fs::write(path.join(file), &limit).is_ok() {
                return Self(Some(path));
            }
            let _ = std::fs::remove_dir(&path);
        }
        eprintln!("no control group can be made: the daemon runs without a memory limit");
        Self(None)
    }

    /// 0: none could be set.
    pub fn limit_bytes(&self) -> u64 {
        if self.0.is_some() { LIMIT_MIB << 20 } else { 0 }
    }

    /// The file that takes its processes.
    pub fn tasks(&self) -> Option<PathBuf> {
        self.0.as_ref().map(|path| path.join("cgroup.procs"))
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_dir(path); // the system clears up after the next start otherwise
        }
    }
}
