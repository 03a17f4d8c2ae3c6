//! The owner of a ledger's files: what root creates while restoring must belong to the user of the daemon.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::Path;

use crate::ledger::embedded::directory::names;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    user: u32,
    group: u32,
}

impl Owner {
    /// The owner of the database, or of the directory if there is no database.
    pub fn of(directory: &Path) -> io::Result<Self> {
        let database = fs::metadata(names::database(directory));
        let known = database.or_else(|_| fs::metadata(directory))?;
        Ok(Self { user: known.uid(), group: known.gid() })
    }

    /// Gives a file that this process has just created to the owner. Needed only if root created it.
    pub fn take(self, path: &Path) -> io::Result<()> {
        let made = fs::metadata(path)?;
        if made.uid() == 0 && (made.uid(), made.gid()) != (self.user, self.group) {
            chown(path, Some(self.user), Some(self.group))?;
        }
        Ok(())
    }

    /// Creates a directory that only the owner may enter.
    pub fn make_directory(self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new().mode(0o700).create(path)?;
        self.take(path)
    }

    /// Copies to a new file, readable by the owner alone.
    pub fn copy(self, from: &Path, to: &Path) -> io::Result<()> {
        io::copy(&mut File::open(from)?, &mut self.make_file(to)?)?;
        Ok(())
    }

    /// Creates a new file that only the owner may read.
    pub fn make_file(self, path: &Path) -> io::Result<File> {
        let made = File::options().write(true).create_new(true).mode(0o600).open(path)?;
        self.take(path)?;
        Ok(made)
    }
}
