//! Sorts the keys of a snapshot on disk, in a bounded amount of memory.
//!
//! Keys are collected up to a bound, sorted, and appended to a file as a run; reading merges the runs. The
//! file has no name, so nobody else can open it, and it is gone with the process, however that ends
//! ([P8](crate::design::P8)).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// Memory for the buffers of all runs that are being merged, in bytes.
const MERGING_BYTES: usize = 4 << 20;

/// One member that a snapshot has in its audience. Personal data.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::operate) struct Entry {
    /// The context key.
    pub key: String,
    /// Segment's user id, if it is known.
    pub user_id: Option<String>,
}

/// Takes keys in any order.
#[derive(Debug)]
pub(in crate::operate) struct Sorter {
    file: File,
    /// Where each run ends.
    ends: Vec<u64>,
    most_bytes: usize,
    texts: Vec<u8>,
    /// Where a key begins, and the bytes of it and of the user id behind it.
    items: Vec<(u32, u32, u32)>,
}

impl Sorter {
    /// Sorts in `directory`, with about `most_bytes` of memory (less than 4 GiB).
    pub fn new(directory: &Path, most_bytes: usize) -> io::Result<Self> {
        let file = tempfile::tempfile_in(directory)?;
        Ok(Self { file, ends: Vec::new(), most_bytes, texts: Vec::new(), items: Vec::new() })
    }

    /// Adds a key; a repeated one counts once.
    pub fn add(&mut self, key: &str, user_id: Option<&str>) -> io::Result<()> {
        let user_id = user_id.unwrap_or_default();
        let size = |text: &str| u32::try_from(text.len()).map_err(io::Error::other);
        let at = u32::try_from(self.texts.len()).map_err(io::Error::other)?;
        self.items.push((at, size(key)?, size(user_id)?));
        self.texts.extend_from_slice(key.as_bytes());
        self.texts.extend_from_slice(user_id.as_bytes());
        let bytes = self.texts.len() + self.items.len() * size_of::<(u32, u32, u32)>();
        if bytes >= self.most_bytes { self.write_run() } else { Ok(()) }
    }

    /// How many runs are on disk.
    pub fn runs(&self) -> usize {
        self.ends.len()
    }

    fn write_run(&mut self) -> io::Result<()> {
        let texts = &self.texts;
        let both = |(at, key, user_id): &(u32, u32, u32)| {
            let (_, rest) = texts.split_at(*at as usize);
            let (key, rest) = rest.split_at(*key as usize);
            (key, &rest[..*user_id as usize])
        };
        self.items.sort_unstable_by(|one, other| both(one).cmp(&both(other)));
        let mut out = BufWriter::new(&self.file);
        let mut written = 0;
        for item in &self.items {
            let (key, user_id) = both(item);
            out.write_all(&item.1.to_le_bytes())?;
            out.write_all(&item.2.to_le_bytes())?;
            out.write_all(key)?;
            out.write_all(user_id)?;
            written += 8 + key.len() as u64 + user_id.len() as u64;
        }
        out.flush()?;
        drop(out);
        self.ends.push(self.ends.last().copied().unwrap_or_default() + written);
        self.texts.clear();
        self.items.clear();
        Ok(())
    }

    /// Ends the sorting.
    pub fn finish(mut self) -> io::Result<Spool> {
        self.write_run()?;
        Ok(Spool { file: Arc::new(self.file), ends: self.ends })
    }
}

/// The keys of a snapshot, to be read in order, as often as needed.
#[derive(Debug)]
pub(in crate::operate) struct Spool {
    file: Arc<File>,
    ends: Vec<u64>,
}

impl Spool {
    /// Its entries in the order of their keys, each key once.
    pub fn read(&self) -> io::Result<Merged> {
        let buffer = (MERGING_BYTES / self.ends.len().max(1)).clamp(4 << 10, 256 << 10);
        let begins = [0].into_iter().chain(self.ends.iter().copied());
        let part = |(at, end)| Part { file: Arc::clone(&self.file), at, end };
        let parts = begins.zip(self.ends.iter().copied()).map(part);
        let mut merged = Merged {
            runs: parts.map(|part| BufReader::with_capacity(buffer, part)).collect(),
            next: BinaryHeap::new(),
            last: None,
        };
        for run in 0..merged.runs.len() {
            merged.refill(run)?;
        }
        Ok(merged)
    }
}

/// A part of a file, read independently of all others.
#[derive(Debug)]
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let most = buffer.len().min(left);
        let bytes = self.file.read_at(&mut buffer[..most], self.at)?;
        self.at += bytes as u64;
        Ok(bytes)
    }
}

/// Iterates over the merged runs.
pub(in crate::operate) struct Merged {
    runs: Vec<BufReader<Part>>,
    next: BinaryHeap<Reverse<(Entry, usize)>>,
    last: Option<String>,
}

impl Merged {
    /// Of nothing.
    pub fn none() -> Self {
        Self { runs: Vec::new(), next: BinaryHeap::new(), last: None }
    }

    /// Reads the next entry of a run, if it has one.
    fn refill(&mut self, run: usize) -> io::Result<()> {
        let from = &mut self.runs[run];
        if io::BufRead::fill_buf(from)?.is_empty() {
            return Ok(());
        }
        let (mut of_key, mut of_user_id) = ([0; 4], [0; 4]);
        from.read_exact(&mut of_key)?;
        from.read_exact(&mut of_user_id)?;
        let mut text = |size: [u8; 4]| {
            let mut bytes = vec![0; u32::from_le_bytes(size) as usize];
            from.read_exact(&mut bytes)?;
            String::from_utf8(bytes).map_err(io::Error::other)
        };
        let (key, user_id) = (text(of_key)?, text(of_user_id)?);
        let user_id = (!user_id.is_empty()).then_some(user_id);
        self.next.push(Reverse((Entry { key, user_id }, run)));
        Ok(())
    }
}

impl Iterator for Merged {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        loop {
            let Reverse((entry, run)) = self.next.pop()?;
            if let Err(error) = self.refill(run) {
                return Some(Err(error));
            }
            if self.last.as_ref() != Some(&entry.key) {
                self.last = Some(entry.key.clone());
                return Some(Ok(entry));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(crate::seeds::kept_in("tests/seeds/spool.txt"))]

        #[test]
        fn keys_come_back_sorted_and_once_however_little_memory_there_is(
            keys in prop::collection::vec("[a-cé]{1,4}", 0..60),
            most_bytes in 1..400_usize,
        ) {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let mut sorter = Sorter::new(directory.path(), most_bytes).expect("it is ours");
            for key in &keys {
                sorter.add(key, Some("u")).expect("there is space");
            }
            let spool = sorter.finish().expect("there is space");
            let named = std::fs::read_dir(directory.path()).expect("it is there").count();
            prop_assert_eq!(named, 0, "it has no name");
            let expected: Vec<String> =
                keys.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
            for _ in 0..2 {
                let read = spool.read().expect("it can be read");
                let read: Vec<Entry> = read.map(|entry| entry.expect("it can be read")).collect();
                prop_assert!(read.iter().all(|entry| entry.user_id.as_deref() == Some("u")));
                let read: Vec<String> = read.into_iter().map(|entry| entry.key).collect();
                prop_assert_eq!(&read, &expected);
            }
        }
    }
}
