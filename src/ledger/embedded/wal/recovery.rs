//! Recovery: what a start finds in the files, and whether something is missing.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use crate::ledger::embedded::wal::block::{
    self, ALIGNED, HEADER, Header, Seal, UNVERSIONED, VERSION,
};
use crate::ledger::embedded::wal::layout::{ANSWERED, Block, FILES, answered};

/// What a start finds.
#[derive(Debug)]
pub(crate) struct Found<T> {
    /// The blocks that are not merged, oldest first.
    pub blocks: Vec<Block>,
    /// The number of the last of them, or of the last merged block.
    pub last: u64,
    /// Their decoded contents, with the numbers of the blocks.
    pub contents: Vec<(u64, T)>,
    /// The seal of this ledger's blocks.
    pub seal: Seal,
}

impl<T> Found<T> {
    /// The number of the last block that is merged.
    pub fn merged(&self) -> u64 {
        self.blocks.first().map_or(self.last, |first| first.number - 1)
    }
}

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScanError {
    /// Blocks that were answered cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// A newer version of cohortd has written blocks that are not merged.
    #[error("the journal has format {0}")]
    Newer(u8),
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    File {
        /// Its path.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
}

/// Scans the log in `directory` for the blocks after `merged`. A torn last block was never answered and is
/// dropped, unless [`ANSWERED`] names it or a newer block exists: then something was lost, which is an error.
/// `read` decodes the records of a block; `None`: they are not records.
pub(crate) fn scan<T>(
    directory: &Path,
    merged: u64,
    seal: Seal,
    read: impl Fn(&[u8]) -> Option<T>,
) -> Result<Found<T>, ScanError> {
    let answered = answered(&directory.join(ANSWERED));
    let mut found = Found { blocks: Vec::new(), last: merged, contents: Vec::new(), seal };
    let mut runs = Vec::new();
    for (file, name) in FILES.iter().enumerate() {
        let path = directory.join(name);
        let run = Run::read(&path, file, merged, &found.seal, &read)
            .map_err(|source| ScanError::File { path, source })?;
        runs.extend(run);
    }
    if let Some(newer) = runs.iter().find_map(|run| run.newer) {
        return Err(ScanError::Newer(newer));
    }
    runs.sort_by_key(|run| run.blocks.first().map_or(u64::MAX, |(block, _)| block.number));
    let newest = runs.iter().filter_map(|run| run.newest).max().unwrap_or(0);
    for (block, content) in runs.into_iter().flat_map(|run| run.blocks) {
        if block.number == found.last + 1 {
            found.last = block.number;
            found.blocks.push(block);
            found.contents.extend(content.map(|content| (block.number, content)));
        }
    }
    if found.last < newest.max(answered) {
        let fault = format!(
            "block {} of the journal is damaged or missing, and what was accepted with it and after \
             it cannot be read",
            found.last + 1
        );
        return Err(ScanError::Damaged(fault));
    }
    Ok(found)
}

/// The contents of one file.
#[derive(Debug)]
struct Run<T> {
    /// Consecutive blocks from its start. The contents of a merged block of a newer version are not decoded.
    blocks: Vec<(Block, Option<T>)>,
    /// The largest number of a sound block anywhere in the file.
    newest: Option<u64>,
    /// The version of the first unmerged block that is newer than [`VERSION`].
    newer: Option<u8>,
}

impl<T> Run<T> {
    /// `None`: there is no such file.
    fn read(
        path: &Path,
        which: usize,
        merged: u64,
        seal: &Seal,
        read: &impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let length = file.metadata()?.len();
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut run = Self { blocks: Vec::new(), newest: None, newer: None };
        let (mut offset, mut version) = (0, UNVERSIONED);
        let mut records = Vec::new();
        while let Some(header) = sound(&mut file, offset, length, seal, &mut records)? {
            let last = run.blocks.last().map(|(block, _)| block.number);
            // Earlier versions reused the number of a block that was never answered.
            let is_instead = last == Some(header.number) && header.version == UNVERSIONED;
            if last.is_some_and(|last| header.number != last + 1) && !is_instead {
                break; // of an earlier use of the file
            }
            if version > UNVERSIONED && header.version == UNVERSIONED {
                break; // nobody writes these versions in this order: it is of an earlier use
            }
            version = header.version;
            let content = if version <= VERSION {
                let Some(content) = read(&records) else { break };
                Some(content)
            } else if header.number > merged {
                run.newer = Some(version);
                return Ok(Some(run));
            } else {
                None
            };
            let (number, bytes) = (header.number, header.whole());
            let block = Block { number, file: which, offset, bytes, began: None };
            if is_instead {
                run.blocks.pop();
            }
            run.blocks.push((block, content));
            run.newest = Some(header.number);
            offset += header.whole();
        }
        let newest = look_behind(&mut file, offset, length, seal)?;
        let is_versioned = version > UNVERSIONED || newest.versioned.is_some();
        // A block of version 1 has no key and may be what a sender has sent: it counts only if no keyed block
        // exists.
        let behind = if is_versioned { newest.versioned } else { newest.unversioned };
        run.newest = run.newest.max(behind);
        Ok(Some(run))
    }
}

/// The largest numbers of sound blocks anywhere in a file.
#[derive(Debug, Default)]
struct Newest {
    versioned: Option<u64>,
    unversioned: Option<u64>,
}

/// Searches for newer blocks behind a bad one.
fn look_behind(
    file: &mut BufReader<File>,
    from: u64,
    length: u64,
    seal: &Seal,
) -> io::Result<Newest> {
    let mut newest = Newest::default();
    let mut records = Vec::new();
    let mut window = vec![0; 1 << 16];
    let mut start = from;
    while start < length {
        seek_to(file, start)?;
        let read = fill(file, &mut window)?;
        let begins = |at: &usize| window[*at..read].starts_with(&block::MAGIC);
        let places: Vec<usize> = (0..read).step_by(ALIGNED).filter(begins).collect();
        for at in places {
            if let Some(header) = sound(file, start + at as u64, length, seal, &mut records)? {
                let newest = match header.version {
                    UNVERSIONED => &mut newest.unversioned,
                    _ => &mut newest.versioned,
                };
                *newest = (*newest).max(Some(header.number));
            }
        }
        start += window.len() as u64;
    }
    Ok(newest)
}

/// The block at `offset`, if it is sound.
fn sound(
    file: &mut BufReader<File>,
    offset: u64,
    length: u64,
    seal: &Seal,
    records: &mut Vec<u8>,
) -> io::Result<Option<Header>> {
    let mut header = [0; HEADER];
    if offset + HEADER as u64 > length {
        return Ok(None);
    }
    seek_to(file, offset)?;
    file.read_exact(&mut header)?;
    let Some(header) = Header::read(&header) else { return Ok(None) };
    if offset + header.whole() > length {
        return Ok(None);
    }
    records.resize(header.bytes, 0);
    file.read_exact(records)?;
    Ok(seal.is_on(&header, records).then_some(header))
}

/// Fills the buffer as far as there is data.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read(&mut bytes[filled..])? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

/// Seeks without discarding the buffer, if possible.
fn seek_to(file: &mut BufReader<File>, offset: u64) -> io::Result<()> {
    let position = file.stream_position()?;
    file.seek_relative(offset.cast_signed().wrapping_sub(position.cast_signed()))
}
