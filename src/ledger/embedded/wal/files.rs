//! The two files of the log: appending and reading back.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tokio::time::Instant;

use crate::ledger::embedded::wal::block::{Header, Seal};
use crate::ledger::embedded::wal::layout::{ANSWERED, Block, FILES};
use crate::ledger::embedded::wal::log::Log;
use crate::ledger::embedded::wal::recovery::Found;

/// Appending leaves a file longer than this, 32 MiB, once the other one is merged. The files are rewritten
/// again and again: their space stays allocated, and a sync has only data to write, no metadata.
const LONG: u64 = 32 << 20;

/// A file is extended with zeros to a multiple of this, 1 MiB, so that most syncs find its length unchanged
/// and have no metadata to write. Preallocated space (`fallocate`) would not do: its first use changes
/// metadata too.
const GROWTH: u64 = 1 << 20;
/// One page: if more is written at once, the system caches it as one large folio, which every later write to
/// a part of it makes dirty as a whole.
const ZEROS: [u8; 4096] = [0; 4096];

/// The two files. The append thread and the writer each have an instance of their own.
#[derive(Debug)]
pub(crate) struct Files {
    directory: PathBuf,
    seal: Seal,
    opened: [Option<Opened>; 2],
    answered: Option<File>,
    /// Index of the file that is appended to, and the offset of its end.
    current: usize,
    end: u64,
}

/// An open file and its length.
#[derive(Debug)]
struct Opened {
    file: File,
    bytes: u64,
}

impl Files {
    /// Continues behind the blocks that were found.
    pub fn new<T>(directory: &Path, found: &Found<T>) -> Self {
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

    /// Appends records as the block with this number; `block` has a gap for the header in front. They are on
    /// stable storage when this returns a block, even if noting it as answered failed.
    pub fn append(
        &mut self,
        log: &Log,
        number: u64,
        block: &mut Vec<u8>,
        began: Instant,
    ) -> Result<Block, AppendError> {
        self.seal.put(number, block).ok_or(AppendError::TooLarge)?;
        self.turn(log).map_err(AppendError::Write)?;
        // Opened before anything is written: if that fails, the number stays free.
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

    /// Restarts the current file if all of it is merged, or switches to the other one if this is long or to
    /// be emptied.
    fn turn(&mut self, log: &Log) -> io::Result<()> {
        let is_long = self.end >= LONG;
        let turn = log.turn(self.current, is_long);
        for (opened, emptied) in self.opened.iter_mut().zip(turn.emptied) {
            if emptied {
                *opened = None; // its length has changed: open it again
            }
        }
        if turn.begins_again {
            (self.current, self.end) = (turn.current, 0);
        }
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
                File::open(&self.directory)?.sync_all()?; // makes its directory entry durable
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
            self.answered = None; // opened again for the next block, perhaps as a new file
        }
        noted
    }

    /// Reads and verifies the records of a published block; `buffer` is reused.
    pub fn read<'a>(&mut self, block: &Block, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let not_as_written = || {
            let fault = format!("block {} of the journal is damaged", block.number);
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
        Ok(records)
    }
}

impl Opened {
    /// Extends the file first if needed: if there is no space for that, nothing of the block is written.
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
pub(crate) enum AppendError {
    /// Nothing of it was appended, and its number stays free; the disk may be full.
    #[error("the journal cannot be written")]
    Write(#[source] io::Error),
    /// It is on stable storage, so its number is used, but it is not noted as answered.
    #[error("the last block of the journal cannot be marked as answered")]
    Note {
        /// Where it is.
        block: Block,
        /// The error of the operating system.
        #[source]
        source: io::Error,
    },
    /// What is on the disk is unknown.
    #[error("the journal cannot be synced")]
    Sync(#[source] io::Error),
    /// The block would exceed the format.
    #[error("the request is too large for the journal")]
    TooLarge,
}
