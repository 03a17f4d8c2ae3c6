//! Whether SQLite's log holds everything that was committed, checked before SQLite reads it.
//!
//! SQLite considers the log to end at the first bad frame: it cannot tell a transaction torn by a power
//! failure, which was promised to nobody, from a bit that flipped in one that was promised. Everything behind
//! that frame would be lost silently. So before SQLite opens it:
//! * The index beside that log (`-shm`) says how many frames were committed and synced, if the process was
//!   killed but the machine was not.
//! * A transaction is begun only when the one before is synced: if a frame is bad and two transactions end
//!   behind it, or another one goes on behind the first end, no power failure can have done that.
//!
//! The formats: `SQLite`, "WAL-mode File Format".

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::Path;

use crate::ledger::embedded::directory::on_disk::with_suffix;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
const VERSION: u32 = 3_007_000;

/// The fault of SQLite's log for the database at `path`, if there is one. Nobody may be writing the log.
pub(crate) fn damage(path: &Path) -> io::Result<Option<String>> {
    let Some(mut log) = open(&with_suffix(path, "-wal"))? else { return Ok(None) };
    let mut head = [0; HEADER];
    if !fill(&mut log, &mut head)? || head == [0; HEADER] {
        return Ok(None); // created, but the machine died before it was written
    }
    let Some(header) = Header::read(&head) else {
        return Ok(Some("the header of SQLite's log is damaged".to_owned()));
    };
    let committed = match open(&with_suffix(path, "-shm"))? {
        Some(index) => committed_frames(index, header.salts)?,
        None => None,
    };
    let mut frames = Frames::new(&header);
    let mut frame = vec![0; FRAME_HEADER + header.page_bytes];
    while fill(&mut log, &mut frame)? {
        frames.next(&frame);
    }
    Ok(frames.damage(committed.unwrap_or(0)))
}

/// Whether committed transactions in SQLite's log for the database at `path` hold all of these pages.
pub(crate) fn has_pages(path: &Path, pages: RangeInclusive<u64>) -> io::Result<bool> {
    let Some(mut log) = open(&with_suffix(path, "-wal"))? else { return Ok(false) };
    let mut head = [0; HEADER];
    if !fill(&mut log, &mut head)? {
        return Ok(false);
    }
    let Some(header) = Header::read(&head) else { return Ok(false) };
    let mut frames = Frames::new(&header);
    let mut frame = vec![0; FRAME_HEADER + header.page_bytes];
    let (mut found, mut begun) = (BTreeSet::new(), BTreeSet::new());
    while frames.is_sound && fill(&mut log, &mut frame)? {
        frames.next(&frame);
        let page = u64::from(number(&frame, 0));
        if frames.is_sound && pages.contains(&page) {
            begun.insert(page);
        }
        if frames.is_sound && number(&frame, 4) > 0 {
            found.append(&mut begun);
        }
    }
    Ok(found.len() as u64 == pages.end() - pages.start() + 1)
}

fn open(path: &Path) -> io::Result<Option<BufReader<File>>> {
    match File::open(path) {
        Ok(file) => Ok(Some(BufReader::with_capacity(1 << 16, file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Fills the buffer. `false`: the file ends before.
fn fill(from: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match from.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The four bytes at `at` as a big-endian number.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

/// The running checksum that each frame continues from the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sums(u32, u32);

impl Sums {
    fn at(bytes: &[u8], at: usize) -> Self {
        Self(number(bytes, at), number(bytes, at + 4))
    }

    /// Continues over `bytes`, whose length is a multiple of eight.
    fn over(self, bytes: &[u8], order: Order) -> Self {
        match order {
            Order::Little => self.over_words(bytes, u32::from_le_bytes),
            Order::Big => self.over_words(bytes, u32::from_be_bytes),
        }
    }

    fn over_words(self, bytes: &[u8], word: impl Fn([u8; 4]) -> u32) -> Self {
        let Self(mut first, mut second) = self;
        for pair in bytes.as_chunks::<4>().0.chunks_exact(2) {
            first = first.wrapping_add(word(pair[0])).wrapping_add(second);
            second = second.wrapping_add(word(pair[1])).wrapping_add(first);
        }
        Self(first, second)
    }
}

/// Byte order of the words that are summed.
#[derive(Clone, Copy)]
enum Order {
    Little,
    Big,
}

impl Order {
    const NATIVE: Self = if cfg!(target_endian = "big") { Self::Big } else { Self::Little };
}

struct Header {
    page_bytes: usize,
    /// New whenever SQLite restarts the log.
    salts: [u8; 8],
    sums: Sums,
    order: Order,
}

impl Header {
    /// `None`: the header is damaged.
    fn read(bytes: &[u8; HEADER]) -> Option<Self> {
        let order = match number(bytes, 0) {
            0x377f_0682 => Order::Little,
            0x377f_0683 => Order::Big,
            _ => return None,
        };
        let page_bytes = usize::try_from(number(bytes, 8)).ok()?;
        let sums = Sums::default().over(&bytes[..24], order);
        let sound = number(bytes, 4) == VERSION
            && page_bytes.is_power_of_two()
            && (512..=65_536).contains(&page_bytes)
            && Sums::at(bytes, 24) == sums;
        let salts = bytes[16..24].try_into().ok()?;
        sound.then_some(Self { page_bytes, salts, sums, order })
    }
}

/// What has been read of SQLite's log.
struct Frames<'a> {
    header: &'a Header,
    sums: Sums,
    /// Frames before the first bad one.
    sound: u32,
    is_sound: bool,
    /// Behind the first bad frame: transactions of this generation that end, …
    ends: u32,
    /// … and whether a further frame of this generation follows such an end.
    goes_on: bool,
}

impl<'a> Frames<'a> {
    fn new(header: &'a Header) -> Self {
        Self { header, sums: header.sums, sound: 0, is_sound: true, ends: 0, goes_on: false }
    }

    fn next(&mut self, frame: &[u8]) {
        let is_of_now = frame[8..16] == self.header.salts;
        let order = self.header.order;
        let sums = self.sums.over(&frame[..8], order).over(&frame[FRAME_HEADER..], order);
        self.is_sound &= is_of_now && number(frame, 0) > 0 && Sums::at(frame, 16) == sums;
        if self.is_sound {
            self.sums = sums;
            self.sound += 1;
        } else if is_of_now {
            self.goes_on |= self.ends > 0;
            self.ends += u32::from(number(frame, 4) > 0); // the size of the database after a commit
        }
    }

    fn damage(&self, committed: u32) -> Option<String> {
        let lost = self.sound < committed || self.goes_on;
        lost.then(|| {
            format!(
                "frame {} of SQLite's log is damaged, and what was committed with it and after it \
                 cannot be read",
                self.sound + 1
            )
        })
    }
}

/// How many frames of the generation with these salts were committed; `None` if the index does not say.
fn committed_frames(mut index: BufReader<File>, salts: [u8; 8]) -> io::Result<Option<u32>> {
    // The header of the index is stored twice, in native byte order; the copies differ if a write was
    // interrupted.
    const ONE: usize = 48;
    let mut both = [0; 2 * ONE];
    if !fill(&mut index, &mut both)? {
        return Ok(None);
    }
    let words = both.as_chunks::<4>().0;
    let native = |at: usize| u32::from_ne_bytes(words[at / 4]);
    let sums = Sums::default().over(&both[..40], Order::NATIVE);
    let is_whole = both[..ONE] == both[ONE..]
        && native(0) == VERSION
        && both[12] == 1
        && Sums(native(40), native(44)) == sums
        && both[32..40] == salts;
    Ok(is_whole.then(|| native(16)))
}
