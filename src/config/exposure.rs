//! Whether a file that holds a secret can be read or replaced by others on the machine.
//!
//! What counts is who else can actually use the file. A service is usually given its secret through a group
//! that may read it (`root:cohortd`, mode 0640; Kubernetes' `fsGroup`), so that is fine. Orchestrators
//! mount secrets read-only into a container, and often readable by all (Docker 0444, Kubernetes 0644 by
//! default). Only the container's own processes see that mount, and the permissions on the host cannot be
//! seen from inside. So there is no warning about a file on a read-only mount.

use std::fs::Metadata;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

const OTHERS_READ: u32 = 0o004;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// What others may do to the file, and how to prevent it, as text that continues after the file's name.
/// `None` if there is nothing to warn about, or if it is not a regular file.
pub(super) fn exposure(path: &Path) -> Option<String> {
    let mode = std::fs::metadata(path).ok().filter(Metadata::is_file)?.permissions().mode();
    words(mode, || is_mounted_secret(path))
}

fn words(mode: u32, is_mounted_secret: impl FnOnce() -> bool) -> Option<String> {
    let can = match (mode & OTHERS_READ != 0, mode & GROUP_OR_OTHERS_WRITE != 0) {
        (false, false) => return None,
        (true, false) => "every user of this machine can read",
        (false, true) => "users other than its owner can replace the content of",
        (true, true) => "other users of this machine can read and replace the content of",
    };
    (!is_mounted_secret()).then(|| {
        format!(
            "{can} (mode {:04o}): use `chmod 600` with the daemon's user as its owner, or `chmod \
             640` with the daemon's group",
            mode & 0o7777
        )
    })
}

/// Whether the file was mounted for this process, usually by an orchestrator: its file system is read-only.
fn is_mounted_secret(path: &Path) -> bool {
    statvfs(path).is_ok_and(|of| of.f_flag.contains(StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_others_can_do_is_told() {
        let table = [
            (0o100_600, None),
            (0o100_400, None),
            (0o100_640, None), // usually the daemon's group
            (0o100_440, None), // Kubernetes with fsGroup
            (0o100_644, Some("every user of this machine can read (mode 0644)")),
            (0o100_444, Some("every user of this machine can read (mode 0444)")),
            (0o100_620, Some("users other than its owner can replace the content of (mode 0620)")),
            (0o100_602, Some("users other than its owner can replace the content of (mode 0602)")),
            (0o100_666, Some("other users of this machine can read and replace the content of")),
        ];
        for (mode, expected) in table {
            let told = words(mode, || false);
            assert_eq!(told.is_some(), expected.is_some(), "{mode:o}");
            let told = told.unwrap_or_default();
            assert!(told.starts_with(expected.unwrap_or_default()), "{mode:o}: {told}");
            assert_eq!(words(mode, || true), None, "{mode:o}, mounted by an orchestrator");
        }
    }

    #[test]
    fn a_file_that_could_be_written_is_looked_at() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("secret");
        std::fs::write(&path, "x").expect("it is ours");
        let chmod = |mode| {
            let mode = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(&path, mode).expect("it is ours");
        };
        chmod(0o644);
        assert!(exposure(&path).is_some());
        chmod(0o600);
        assert_eq!(exposure(&path), None);
        assert_eq!(exposure(folder.path()), None, "a folder holds no secret");
        assert_eq!(exposure(&folder.path().join("none")), None);
    }
}
