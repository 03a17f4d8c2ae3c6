//! The two files of the journal: appended to, read back, and looked through at the start.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use super::block::{self, ALIGNED, HEADER, Header, Seal, UNVERSIONED, VERSION};
use super::record::{Outline, Records};
use super::{Block, Journal};

/// Their names in the directory of the ledger.
pub(in super::super) const FILES: [&str; 2] = ["journal-1", "journal-2"];
/// The number of the last block that was answered, if the process was killed and the machine was not:
/// written after each sync, and not synced itself.
pub(in super::super) const ANSWERED: &str = "journal-answered";

/// A file longer than this is left for the other one, once that is merged: 32 MiB. Written again and
/// again, its place on the disk stays, and a sync has nothing to note but the bytes.
const LONG: u64 = 32 << 20;

/// A file that has to grow is written with zeros up to a multiple of this, 1 MiB: a sync that finds
/// the file as long as before has nothing to note but the bytes. Space that was only set aside would
/// not do, for its first use has to be noted too.
const GROWTH: u64 = 1 << 20;
/// A page: what was written in larger pieces the system keeps so, and counts as written again whole
/// whenever a part of it is.
const ZEROS: [u8; 4096] = [0; 4096];

/// The files, open for those who append and for the writer, who reads them back.
#[derive(Debug)]
pub(in super::super) struct Files {
    directory: PathBuf,
    seal: Seal,
    opened: [Option<Opened>; 2],
    answered: Option<File>,
    /// Which is appended to, and where.
    current: usize,
    end: u64,
}

/// One of the two.
#[derive(Debug)]
struct Opened {
    file: File,
    bytes: u64,
}

impl Files {
    /// To go on behind what was found.
    pub fn new(directory: &Path, found: &Found) -> Self {
        let behind = found.blocks.last().map(|last| (last.file, last.offset + last.bytes));
        let (current, end) = behind.unwrap_or((0, 0));
        Self {
            directory: directory.to_owned(),
            seal: found.seal.clone(),
            opened: [None, None],
            answered: None,
            current,
            end,
        }
    }

    /// Appends records as the block with this number: `block` has room for a header in front. They are
    /// on stable storage when this returns a block, whether it is noted as answered or not.
    pub fn append(
        &mut self,
        journal: &Journal,
        number: u64,
        block: &mut Vec<u8>,
        began: Instant,
    ) -> Result<Block, AppendError> {
        self.seal.put(number, block).ok_or(AppendError::TooLarge)?;
        self.turn(journal).map_err(AppendError::Write)?;
        // Made before anything is written: where there is no room for it, no number is used.
        self.open_answered().map_err(AppendError::Write)?;
        let (file, offset) = (self.current, self.end);
        let opened = self.open(file, true).map_err(AppendError::Write)?;
        opened.write(block, offset).map_err(AppendError::Write)?;
        opened.file.sync_data().map_err(AppendError::Sync)?;
        self.end += block.len() as u64;
        let block = Block { number, file, offset, bytes: block.len() as u64, began: Some(began) };
        match self.note_answered(number) {
            Ok(()) => Ok(block),
            Err(source) => Err(AppendError::Note { block, source }),
        }
    }

    /// Begins the current file again if all is merged, or takes the other one if this is long or to be
    /// emptied.
    fn turn(&mut self, journal: &Journal) -> io::Result<()> {
        let mut state = journal.lock();
        for (opened, emptied) in self.opened.iter_mut().zip(&mut state.turn.emptied) {
            if std::mem::take(emptied) {
                *opened = None; // it is not as long as it was
            }
        }
        let other = 1 - self.current;
        let is_long = self.end >= LONG && state.holds(self.current);
        if (is_long || state.turn.is_due) && !state.holds(other) {
            (self.current, self.end) = (other, 0);
            (state.turn.current, state.turn.is_due) = (other, false);
        } else if !state.holds(self.current) {
            self.end = 0;
        }
        drop(state);
        if self.end == 0 {
            let opened = self.open(self.current, true)?;
            if opened.bytes > 2 * LONG {
                opened.file.set_len(LONG)?;
                opened.bytes = LONG;
            }
        }
        Ok(())
    }

    fn open(&mut self, which: usize, make: bool) -> io::Result<&mut Opened> {
        let slot = &mut self.opened[which];
        if slot.is_none() {
            let path = self.directory.join(FILES[which]);
            let is_new = make && !path.exists();
            let file =
                File::options().read(true).write(true).create(make).truncate(false).open(path)?;
            if is_new {
                File::open(&self.directory)?.sync_all()?; // so that its name is on stable storage too
            }
            let bytes = file.metadata()?.len();
            *slot = Some(Opened { file, bytes });
        }
        Ok(slot.as_mut().expect("it was opened"))
    }

    fn open_answered(&mut self) -> io::Result<()> {
        if self.answered.is_none() {
            let path = self.directory.join(ANSWERED);
            let file = File::options().write(true).create(true).truncate(false).open(path)?;
            self.answered = Some(file);
        }
        Ok(())
    }

    fn note_answered(&mut self, number: u64) -> io::Result<()> {
        let number = number.to_le_bytes();
        let bytes = [&number[..], &crc32fast::hash(&number).to_le_bytes()].concat();
        let noted = self.answered.as_ref().map_or(Ok(()), |file| file.write_all_at(&bytes, 0));
        if noted.is_err() {
            self.answered = None; // opened again for the next block: it may be another file by then
        }
        noted
    }

    /// The records of a block that was published, read into `buffer`, which is used again.
    pub fn read<'a>(&mut self, block: &Block, buffer: &'a mut Vec<u8>) -> io::Result<Records<'a>> {
        let not_as_written = || {
            let fault = format!("block {} of the journal is not as it was written", block.number);
            io::Error::new(io::ErrorKind::InvalidData, fault)
        };
        let file = &self.open(block.file, false)?.file;
        buffer.resize(usize::try_from(block.bytes).map_err(io::Error::other)?, 0);
        file.read_exact_at(buffer, block.offset)?;
        let (header, records) = buffer.split_first_chunk().ok_or_else(not_as_written)?;
        let header = Header::read(header).filter(|header| header.number == block.number);
        let header = header.ok_or_else(not_as_written)?;
        let records = records.get(..header.bytes).ok_or_else(not_as_written)?;
        if !self.seal.is_on(&header, records) {
            return Err(not_as_written());
        }
        Ok(Records::of(records))
    }
}

impl Opened {
    /// Makes the file grow first if it must: where there is no space for that, nothing of the block is
    /// written.
    fn write(&mut self, block: &[u8], offset: u64) -> io::Result<()> {
        let mut end = offset + block.len() as u64;
        if end > self.bytes {
            let grown = end.next_multiple_of(GROWTH);
            while end < grown {
                let left = usize::try_from(grown - end).unwrap_or(usize::MAX);
                let zeros = &ZEROS[..left.min(ZEROS.len())];
                self.file.write_all_at(zeros, end)?;
                end += zeros.len() as u64;
            }
            self.bytes = grown;
        }
        self.file.write_all_at(block, offset)
    }
}

/// Why a block was not appended.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum AppendError {
    /// Nothing of it counts, and its number is free; the disk may have no space.
    #[error("the journal cannot be written")]
    Write(#[source] io::Error),
    /// It is on stable storage, so that its number is used, but nothing says that it was answered.
    #[error("the last block of the journal cannot be noted as answered")]
    Note {
        /// Where it is.
        block: Block,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What the disk holds is not known any more.
    #[error("the journal cannot be synced")]
    Sync(#[source] io::Error),
    /// No block is so large.
    #[error("the request is too large for the journal")]
    TooLarge,
}

/// What a start finds.
#[derive(Debug)]
pub(in super::super) struct Found {
    /// Those that are not merged, oldest first.
    pub blocks: Vec<Block>,
    /// The number of the last, or of the last that was merged.
    pub last: u64,
    /// What is in them, with the number of their block.
    pub outlines: Vec<(u64, Outline)>,
    /// What the blocks of this ledger are sealed with.
    seal: Seal,
}

/// Why what is there cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum ScanError {
    /// Blocks that were answered cannot be read.
    #[error("{0}")]
    Damaged(String),
    /// A newer version of cohortd has written blocks that are not merged.
    #[error("the journal has format {0}")]
    Newer(u8),
    /// The system does not let us.
    #[error("{} cannot be read", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
}

/// Looks through the journal in `directory` for what is behind the block `merged`. What was appended
/// last and is torn was promised to nobody, unless [`ANSWERED`] says that it was: then, or if anything
/// stands behind it, something was lost.
pub(in super::super) fn scan(
    directory: &Path,
    merged: u64,
    seal: Seal,
) -> Result<Found, ScanError> {
    let answered = answered(&directory.join(ANSWERED));
    let mut found = Found { blocks: Vec::new(), last: merged, outlines: Vec::new(), seal };
    let mut runs = Vec::new();
    for (file, name) in FILES.iter().enumerate() {
        let path = directory.join(name);
        let run = Run::read(&path, file, merged, &found.seal)
            .map_err(|source| ScanError::File { path, source })?;
        runs.extend(run);
    }
    if let Some(newer) = runs.iter().find_map(|run| run.newer) {
        return Err(ScanError::Newer(newer));
    }
    runs.sort_by_key(|run| run.blocks.first().map_or(u64::MAX, |(block, _)| block.number));
    let newest = runs.iter().filter_map(|run| run.newest).max().unwrap_or(0);
    for (block, outlines) in runs.into_iter().flat_map(|run| run.blocks) {
        if block.number == found.last + 1 {
            found.last = block.number;
            found.blocks.push(block);
            found.outlines.extend(outlines.into_iter().map(|outline| (block.number, outline)));
        }
    }
    if found.last < newest.max(answered) {
        let fault = format!(
            "block {} of the journal is not as it was written, and what was accepted with it and \
             after it cannot be read",
            found.last + 1
        );
        return Err(ScanError::Damaged(fault));
    }
    Ok(found)
}

/// What [`ANSWERED`] says; zero if it cannot be read: then it says nothing.
pub(in super::super) fn answered(path: &Path) -> u64 {
    let mut bytes = [0; 12];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut bytes, 0));
    if read.is_err() {
        return 0;
    }
    let number = bytes.first_chunk::<8>().copied().unwrap_or_default();
    let is_sound = bytes.get(8..12) == Some(&crc32fast::hash(&number).to_le_bytes());
    if is_sound { u64::from_le_bytes(number) } else { 0 }
}

/// What one file holds.
#[derive(Debug)]
struct Run {
    /// From its start on, without a gap.
    blocks: Vec<(Block, Vec<Outline>)>,
    /// The largest number of a sound block, wherever it is.
    newest: Option<u64>,
    /// The version of the first block that is not merged, if it is newer than [`VERSION`].
    newer: Option<u8>,
}

impl Run {
    /// `None`: there is no such file.
    fn read(path: &Path, which: usize, merged: u64, seal: &Seal) -> io::Result<Option<Self>> {
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
            // Earlier versions used the number of a block again that was promised to nobody.
            let is_instead = last == Some(header.number) && header.version == UNVERSIONED;
            if last.is_some_and(|last| header.number != last + 1) && !is_instead {
                break; // of the time before the file was begun again
            }
            if version > UNVERSIONED && header.version == UNVERSIONED {
                break; // nobody writes this behind the other: it is a part of what was there before
            }
            version = header.version;
            let outlines = if version <= VERSION {
                let Some(outlines) = outlines(&records) else { break };
                outlines
            } else if header.number > merged {
                run.newer = Some(version);
                return Ok(Some(run));
            } else {
                Vec::new() // nobody needs it
            };
            let (number, bytes) = (header.number, header.whole());
            let block = Block { number, file: which, offset, bytes, began: None };
            if is_instead {
                run.blocks.pop();
            }
            run.blocks.push((block, outlines));
            run.newest = Some(header.number);
            offset += header.whole();
        }
        let newest = look_behind(&mut file, offset, length, seal)?;
        let is_versioned = version > UNVERSIONED || newest.versioned.is_some();
        // Without a version, it may be what a sender has sent: it counts only where nothing else does.
        let behind = if is_versioned { newest.versioned } else { newest.unversioned };
        run.newest = run.newest.max(behind);
        Ok(Some(run))
    }
}

/// The largest numbers of the sound blocks somewhere in a file.
#[derive(Debug, Default)]
struct Newest {
    versioned: Option<u64>,
    unversioned: Option<u64>,
}

/// Whether a newer block stands behind a bad one.
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

fn outlines(records: &[u8]) -> Option<Vec<Outline>> {
    let mut records = Records::of(records);
    let mut outlines = Vec::new();
    while let Some(outline) = records.next_outline().ok()? {
        outlines.push(outline);
    }
    Some(outlines)
}

/// The block at `offset`, if it is as it was written.
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

/// As much as there is.
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

/// Keeps what is buffered, if it can.
fn seek_to(file: &mut BufReader<File>, offset: u64) -> io::Result<()> {
    let position = file.stream_position()?;
    file.seek_relative(offset.cast_signed().wrapping_sub(position.cast_signed()))
}

/// Whether anything is there to be merged or moved.
pub(in super::super) fn exist(directory: &Path) -> bool {
    FILES.iter().any(|name| fs::exists(directory.join(name)).unwrap_or(true))
}
