//! Checksums of rows: a bit that flips on the disk is found when the row is read, and is never used. SQLite
//! itself checks only the structure of its pages, not their contents.

use rusqlite::ffi;

/// Size of the buffer, enough for most rows: one CRC over the whole row is faster than one for each value.
const GATHERED: usize = 256;

/// Computes the checksum of a row from its values in a fixed order.
#[derive(Debug)]
pub(crate) struct Checksum {
    of_others: crc32fast::Hasher,
    gathered: [u8; GATHERED],
    length: usize,
}

impl Checksum {
    pub fn new() -> Self {
        Self { of_others: crc32fast::Hasher::new(), gathered: [0; GATHERED], length: 0 }
    }

    fn add(&mut self, value: &[u8]) {
        if let Some(room) = self.gathered[self.length..].get_mut(..value.len()) {
            room.copy_from_slice(value);
            self.length += value.len();
        } else {
            self.of_others.update(&self.gathered[..self.length]);
            self.of_others.update(value);
            self.length = 0;
        }
    }

    pub fn number(&mut self, value: i64) -> &mut Self {
        self.add(&value.to_le_bytes());
        self
    }

    /// A missing value differs from zero.
    pub fn maybe(&mut self, value: Option<i64>) -> &mut Self {
        match value {
            Some(value) => self.number(1).number(value),
            None => self.number(0),
        }
    }

    /// Includes the length, so that adjacent texts cannot be confused.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.number(i64::try_from(value.len()).unwrap_or(i64::MAX)).add(value);
        self
    }

    pub fn text(&mut self, value: &str) -> &mut Self {
        self.bytes(value.as_bytes())
    }

    pub fn finish(&self) -> u32 {
        let mut of_all = self.of_others.clone();
        of_all.update(&self.gathered[..self.length]);
        of_all.finalize()
    }
}

/// Compares the stored checksum with that of what was read; rows from before there were checksums have none.
pub(crate) fn verify(
    stored: Option<u32>,
    read: impl FnOnce() -> u32,
    what: &str,
) -> rusqlite::Result<()> {
    match stored {
        Some(stored) if stored != read() => Err(damage(what)),
        _ => Ok(()),
    }
}

/// The error that says that `what` is not what was written.
pub(crate) fn damage(what: &str) -> rusqlite::Error {
    corrupt(&format!("{what} does not match its checksum"))
}

/// The error that says that the disk does not hold what was written, and how that shows.
pub(crate) fn corrupt(how: &str) -> rusqlite::Error {
    let code = ffi::Error::new(ffi::SQLITE_CORRUPT);
    rusqlite::Error::SqliteFailure(code, Some(how.to_owned()))
}

/// Whether an error means that the disk does not hold what was written.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::{Error, ErrorCode};
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        // A value of a type or range that is never stored.
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..)
        | Error::InvalidQuery => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seeds;

    proptest! {
        #![proptest_config(seeds::kept_in("tests/seeds/checksum.txt"))]

        #[test]
        fn it_is_that_of_all_values_one_after_the_other(
            values in proptest::collection::vec("[a-z]{0,300}", 0..6),
        ) {
            let mut checksum = Checksum::new();
            let mut all = Vec::new();
            for value in &values {
                checksum.maybe(Some(7)).text(value);
                for number in [1, 7, value.len() as u64] {
                    all.extend(number.to_le_bytes());
                }
                all.extend(value.as_bytes());
            }
            prop_assert_eq!(checksum.finish(), crc32fast::hash(&all));
        }
    }
}
