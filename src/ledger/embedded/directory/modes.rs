//! Permissions of the ledger's files: only their owner may read them, whatever they were before.
//!
//! New files are created under the process's umask, which excludes everybody else. What an earlier version,
//! another umask or a copy has left readable is tightened when the ledger is locked.

use std::fs::{self, Metadata, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Any permission of the group or of others.
const OTHERS: u32 = 0o077;

/// Removes the permissions of others from the directory and its files. Logs a warning for what we may not
/// change.
pub(crate) fn tighten(directory: &Path) {
    close(directory, fs::metadata(directory).ok());
    for inside in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Symbolic links are left alone, and so are their targets.
        close(&inside.path(), inside.metadata().ok().filter(|of| !of.is_symlink()));
    }
}

fn close(path: &Path, metadata: Option<Metadata>) {
    let Some(mode) = metadata.map(|of| of.permissions().mode()) else { return };
    if mode & OTHERS == 0 {
        return;
    }
    if let Err(error) = fs::set_permissions(path, Permissions::from_mode(mode & !OTHERS)) {
        tracing::warn!(
            path = %path.display(),
            mode = format_args!("{:03o}", mode & 0o777),
            %error,
            "other users can read or change a file of the ledger, and its permissions cannot be \
             tightened"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_may_read_is_closed_and_links_are_left_alone() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (ledger, elsewhere) = (folder.path().join("ledger"), folder.path().join("elsewhere"));
        fs::create_dir(&ledger).expect("it is ours");
        let inside = ["ledger.db", "journal-1", "closed", "kept"].map(|name| ledger.join(name));
        let [database, journal, closed, kept] = &inside;
        for file in [database, journal, closed, &elsewhere] {
            fs::write(file, "").expect("it is ours");
        }
        fs::create_dir(kept).expect("it is ours");
        std::os::unix::fs::symlink(&elsewhere, ledger.join("link")).expect("it is ours");
        let modes = [
            (database, 0o644, 0o600),
            (journal, 0o664, 0o600),
            (closed, 0o400, 0o400),
            (kept, 0o755, 0o700),
            (&ledger, 0o2755, 0o2700),
            (&elsewhere, 0o644, 0o644),
        ];
        for (path, before, _) in modes {
            fs::set_permissions(path, Permissions::from_mode(before)).expect("it is ours");
        }
        tighten(&ledger);
        for (path, _, after) in modes {
            let mode = fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
            assert_eq!(format!("{mode:o}"), format!("{after:o}"), "{}", path.display());
        }
    }
}
