//! A checksum for each row: a bit that flipped on the disk is found when the row is read, and never
//! used. SQLite itself checks the structure of its pages, not what they say.

use rusqlite::ffi;

/// Gathers the values of a row in a fixed order.
#[derive(Debug)]
pub(super) struct Checksum(crc32fast::Hasher);

impl Checksum {
    pub fn new() -> Self {
        Self(crc32fast::Hasher::new())
    }

    pub fn number(mut self, value: i64) -> Self {
        self.0.update(&value.to_le_bytes());
        self
    }

    /// Nothing is not the same as zero.
    pub fn maybe(self, value: Option<i64>) -> Self {
        match value {
            Some(value) => self.number(1).number(value),
            None => self.number(0),
        }
    }

    /// With its length, so that two texts do not run into each other.
    pub fn bytes(self, value: &[u8]) -> Self {
        let mut next = self.number(i64::try_from(value.len()).unwrap_or(i64::MAX));
        next.0.update(value);
        next
    }

    pub fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    pub fn finish(self) -> u32 {
        self.0.finalize()
    }
}

/// Compares what is stored with what is read; rows from before there were checksums have none.
pub(super) fn verify(
    stored: Option<u32>,
    read: impl FnOnce() -> u32,
    what: &str,
) -> rusqlite::Result<()> {
    match stored {
        Some(stored) if stored != read() => Err(damage(what)),
        _ => Ok(()),
    }
}

/// `what` is not as it was written.
pub(super) fn damage(what: &str) -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        ffi::Error::new(ffi::SQLITE_CORRUPT),
        Some(format!("{what} is not as it was written")),
    )
}

/// Whether an error says that what is on the disk is not what was written.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::{Error, ErrorCode};
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        // A value of a type or range that was never stored.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::InvalidQuery => true,
        _ => false,
    }
}
