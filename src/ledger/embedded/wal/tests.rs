//! The log alone: whatever was appended is found again, torn anywhere it is a prefix, and damage is never
//! silent.

use std::fs;
use std::path::Path;

use proptest::prelude::*;
use tokio::time::Instant;

use super::*;
use crate::seeds;

const KEY: &[u8] = b"a key of the ledger";

type Records = Vec<u8>;

fn found(directory: &Path, merged: u64) -> Result<Found<Records>, ScanError> {
    scan(directory, merged, Seal::of(KEY), |records| Some(records.to_vec()))
}

/// Appends each of these as a block behind what is there; the blocks up to `merged` are merged.
fn append(directory: &Path, merged: u64, blocks: &[Records]) -> u64 {
    let found = found(directory, merged).expect("it is sound");
    let (log, mut files) = (Log::new(&found), Files::new(directory, &found));
    for records in blocks {
        log.begin_to_append();
        let number = log.last() + 1;
        let mut block = vec![0; BLOCK_HEADER];
        block.extend_from_slice(records);
        let appended = files.append(&log, number, &mut block, Instant::now());
        log.publish(appended.expect("there is space"));
    }
    log.last()
}

fn contents(directory: &Path, merged: u64) -> Result<Vec<(u64, Records)>, ScanError> {
    found(directory, merged).map(|found| found.contents)
}

fn blocks() -> impl Strategy<Value = Vec<Records>> {
    proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..seeds::kept_in("tests/seeds/wal.txt") })]

    #[test]
    fn what_was_appended_is_found_behind_what_is_merged(
        lives in proptest::collection::vec((blocks(), any::<proptest::sample::Index>()), 1..5),
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (mut all, mut merged) = (Vec::new(), 0);
        for (blocks, merges) in lives {
            let last = append(directory.path(), merged, &blocks);
            all.extend(blocks);
            prop_assert_eq!(last, all.len() as u64);
            merged += merges.index(usize::try_from(last - merged).expect("few") + 1) as u64;
            let expected: Vec<_> = (1..).zip(all.iter().cloned()).skip_while(|(number, _)| *number <= merged).collect();
            let found = found(directory.path(), merged).expect("it is sound");
            prop_assert_eq!((found.merged(), found.last), (merged, last));
            prop_assert_eq!(found.contents, expected);
        }
    }

    #[test]
    fn torn_anywhere_it_is_a_prefix_or_refused_if_what_is_missing_was_answered(
        blocks in blocks(),
        at in any::<proptest::sample::Index>(),
        is_machine in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        append(directory.path(), 0, &blocks);
        let path = directory.path().join(FILES[0]);
        let whole = fs::read(&path).expect("it is there");
        let used: usize = blocks.iter().map(|of| (BLOCK_HEADER + of.len()).next_multiple_of(8)).sum();
        let end = at.index(used);
        fs::write(&path, &whole[..end]).expect("there is space");
        if is_machine {
            // The machine died too: the file that was not synced is gone.
            fs::remove_file(directory.path().join(ANSWERED)).expect("it is there");
        }
        match contents(directory.path(), 0) {
            Ok(found) => {
                prop_assert!(is_machine, "the last block was answered");
                let expected: Vec<_> = (1..).zip(blocks).take(found.len()).collect();
                prop_assert_eq!(found, expected);
            }
            Err(ScanError::Damaged(_)) => prop_assert!(!is_machine),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn a_changed_byte_is_harmless_or_reported(
        blocks in blocks(),
        at in any::<proptest::sample::Index>(),
        bits in 1..=u8::MAX,
    ) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        append(directory.path(), 0, &blocks);
        let path = directory.path().join(FILES[0]);
        let mut bytes = fs::read(&path).expect("it is there");
        let used: usize = blocks.iter().map(|of| (BLOCK_HEADER + of.len()).next_multiple_of(8)).sum();
        bytes[at.index(used)] ^= bits;
        fs::write(&path, &bytes).expect("there is space");
        // A change in the padding has no effect; anywhere else the block was answered, so it is an error.
        if let Ok(found) = contents(directory.path(), 0) {
            prop_assert_eq!(found, (1..).zip(blocks).collect::<Vec<_>>());
        }
    }
}

#[test]
fn a_block_of_another_ledger_is_none_of_this_one() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    append(directory.path(), 0, &[b"one".to_vec()]);
    fs::remove_file(directory.path().join(ANSWERED)).expect("it is there");
    let other =
        scan(directory.path(), 0, Seal::of(b"another key"), |records| Some(records.to_vec()));
    assert!(other.expect("nothing of it is here").blocks.is_empty());
}

const MIB: u64 = 1 << 20;

fn nothing() -> Found<Records> {
    Found { blocks: Vec::new(), last: 0, contents: Vec::new(), seal: Seal::of(KEY) }
}

/// Appends blocks of these sizes without merging any; returns their files and offsets.
fn places(directory: &Path, sizes: &[u64]) -> Vec<(usize, u64)> {
    let (log, mut files) = (Log::new(&nothing()), Files::new(directory, &nothing()));
    let mut append = |(number, size): (u64, &u64)| {
        let mut block = vec![0; BLOCK_HEADER + usize::try_from(*size).expect("it fits")];
        let appended =
            files.append(&log, number, &mut block, Instant::now()).expect("there is space");
        assert_eq!(
            files.read(&appended, &mut Vec::new()).expect("it is there").len() as u64,
            *size
        );
        log.publish(appended);
        (appended.file, appended.offset)
    };
    (1..).zip(sizes).map(&mut append).collect()
}

/// A sync that finds the length unchanged has only data to write.
#[test]
fn a_file_grows_by_whole_mebibytes_and_is_left_when_it_is_long() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let bytes =
        |which: usize| fs::metadata(directory.path().join(FILES[which])).map_or(0, |of| of.len());
    let header = BLOCK_HEADER as u64;
    let sizes = [MIB - header, 8, 3 * MIB / 2, 30 * MIB, 8, 8];
    let expected = [
        (0, 0),
        (0, MIB),
        (0, MIB + header + 8),
        (0, MIB * 5 / 2 + 2 * header + 8),
        (1, 0), // the first one has more than 32 MiB
        (1, header + 8),
    ];
    assert_eq!(places(directory.path(), &sizes[..1]), expected[..1]);
    assert_eq!(bytes(0), MIB, "it fits exactly");
    assert_eq!(places(directory.path(), &sizes[..2]), expected[..2]);
    assert_eq!(bytes(0), 2 * MIB);
    assert_eq!(places(directory.path(), &sizes), expected);
    assert_eq!((bytes(0), bytes(1)), (33 * MIB, MIB));
    let first = fs::read(directory.path().join(FILES[1])).expect("it is there");
    let used = 2 * (BLOCK_HEADER + 8);
    assert!(first[used..].iter().all(|byte| *byte == 0), "zeros follow the last block");
}

/// A burst leaves a file that is too large to be kept for good.
#[test]
fn a_file_that_has_grown_too_large_is_cut_when_it_begins_again() {
    for (mib, after) in [(64, 64), (65, 32)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(FILES[0]);
        let set_bytes = |mib: u64| {
            let file = fs::File::options().write(true).create(true).truncate(false).open(&path);
            file.and_then(|file| file.set_len(mib * MIB)).expect("there is space");
        };
        let bytes = || fs::metadata(&path).expect("it is there").len();
        set_bytes(mib);
        places(directory.path(), &[8]);
        assert_eq!(bytes(), after * MIB, "{mib} MiB");
        let (log, mut files) = (Log::new(&nothing()), Files::new(directory.path(), &nothing()));
        let mut append = |number| {
            let mut block = vec![0; BLOCK_HEADER + 8];
            log.publish(
                files.append(&log, number, &mut block, Instant::now()).expect("there is space"),
            );
        };
        append(1);
        set_bytes(mib);
        append(2);
        assert_eq!(bytes(), mib * MIB, "not while a block in it is needed");
    }
}

#[test]
fn the_last_answered_number_is_what_was_noted_or_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join(ANSWERED);
    assert_eq!(answered(&path), 0, "there is no file");
    places(directory.path(), &[8, 8, 8]);
    assert_eq!(answered(&path), 3);
    let sound = fs::read(&path).expect("it is there");
    for at in 0..sound.len() {
        let mut changed = sound.clone();
        changed[at] ^= 1;
        fs::write(&path, &changed).expect("there is space");
        assert_eq!(answered(&path), 0, "byte {at} has changed");
    }
    fs::write(&path, &sound[..11]).expect("there is space");
    assert_eq!(answered(&path), 0, "it is torn");
}

#[test]
fn either_file_is_a_log() {
    for name in FILES {
        let directory = tempfile::tempdir().expect("a temporary directory");
        assert!(!exist(directory.path()));
        fs::write(directory.path().join(name), b"").expect("there is space");
        assert!(exist(directory.path()));
    }
}

#[test]
fn the_key_of_a_ledger_is_not_printed() {
    assert_eq!(format!("{:?}", Seal::of(KEY)), "Seal");
}

/// A log that cannot be read is not one that is not there.
#[test]
fn a_file_that_cannot_be_opened_refuses_the_start() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    assert!(contents(directory.path(), 0).expect("there is none").is_empty());
    let path = directory.path().join(FILES[1]);
    std::os::unix::fs::symlink(&path, &path).expect("there is space");
    let refused = contents(directory.path(), 0).expect_err("it points to itself");
    assert!(matches!(refused, ScanError::File { .. }), "{refused}");
}

/// A block of this version of the format.
fn written(version: u8, number: u64, records: &[u8]) -> Records {
    let mut sum = crc32fast::Hasher::new();
    if version > 1 {
        sum.update(b"journal");
        sum.update(KEY);
        sum.update(&[version]);
    }
    let length = u32::try_from(records.len()).expect("it is short").to_le_bytes();
    for part in [&number.to_le_bytes()[..], &length, records] {
        sum.update(part);
    }
    let mark = if version == 1 { b'J' } else { version };
    let number = number.to_le_bytes();
    let checksum = sum.finalize().to_le_bytes();
    let mut block = [&b"cohortd"[..], &[mark], &number, &length, &checksum, records].concat();
    block.resize(block.len().next_multiple_of(8), 0);
    block
}

/// What a start finds, or a part of the reason why it is refused.
type Expected<'a> = Result<&'a [(u64, &'a str)], &'a str>;

#[test]
fn a_start_reads_each_version_as_its_daemon_wrote_it() {
    let one = |number, text: &str| written(1, number, text.as_bytes());
    let two = |number, text: &str| written(2, number, text.as_bytes());
    let torn = |mut block: Records| {
        block[24] ^= 1;
        block
    };
    // what a file holds, the last merged block, and what is found
    let lost = Err("is damaged or missing");
    let rows: [(&str, Vec<Records>, u64, Expected<'_>); 15] = [
        (
            "one after the other",
            vec![one(1, "a"), one(2, "b"), two(3, "c")],
            0,
            Ok(&[(1, "a"), (2, "b"), (3, "c")]),
        ),
        (
            "version 1 took a number again",
            vec![one(1, "a"), one(2, "b"), one(2, "c"), one(3, "d")],
            0,
            Ok(&[(1, "a"), (2, "c"), (3, "d")]),
        ),
        ("no records", vec![two(1, "a"), two(2, "")], 0, Ok(&[(1, "a"), (2, "")])),
        ("this one never does", vec![two(1, "a"), two(1, "b")], 0, Ok(&[(1, "a")])),
        ("an earlier use", vec![two(8, "h"), two(5, "e")], 7, Ok(&[(8, "h")])),
        ("an earlier use by version 1", vec![two(8, "h"), one(9, "i")], 7, Ok(&[(8, "h")])),
        ("merged ones", vec![two(7, "g"), two(8, "h")], 7, Ok(&[(8, "h")])),
        ("a newer version", vec![two(1, "a"), written(3, 2, b"b")], 0, Err("format 3")),
        ("a newer version, merged", vec![written(3, 1, b"a"), two(2, "b")], 1, Ok(&[(2, "b")])),
        ("the last one is torn", vec![two(1, "a"), torn(two(2, "b"))], 0, Ok(&[(1, "a")])),
        ("one behind a bad one", vec![two(1, "a"), torn(two(2, "b")), two(3, "c")], 0, lost),
        ("the first one is bad", vec![torn(two(1, "a")), two(2, "b")], 0, lost),
        (
            "version 1 behind a bad one of it",
            vec![one(1, "a"), torn(one(2, "b")), one(3, "c")],
            0,
            lost,
        ),
        // a sender can send what looks like version 1
        (
            "version 1 behind a bad one",
            vec![two(1, "a"), torn(two(2, "b")), one(3, "c")],
            0,
            Ok(&[(1, "a")]),
        ),
        ("both behind a bad one", vec![torn(one(1, "a")), two(2, "b"), one(9, "c")], 2, Ok(&[])),
    ];
    for (case, blocks, merged, expected) in rows {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join(FILES[0]), blocks.concat()).expect("there is space");
        match (contents(directory.path(), merged), expected) {
            (Ok(found), Ok(expected)) => {
                let expected =
                    expected.iter().map(|(number, text)| (*number, text.as_bytes().to_vec()));
                assert_eq!(found, expected.collect::<Vec<_>>(), "{case}");
            }
            (Err(refused), Err(expected)) => {
                assert!(refused.to_string().contains(expected), "{case}: {refused}");
            }
            (found, _) => panic!("{case}: {found:?}"),
        }
    }
}

/// Wherever it begins and whichever file it is in, a newer block shows that something is missing.
#[test]
fn a_newer_block_is_found_far_behind_a_bad_one() {
    for (gap, file) in [(0, 0), (8, 0), (1 << 16, 0), ((1 << 17) - 8, 0), (3 << 16, 1)] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut bytes = vec![0; gap];
        bytes.extend(written(2, 9, b"newer"));
        if file == 0 {
            let mut front = written(2, 1, b"a");
            front.extend(bytes);
            bytes = front;
        } else {
            fs::write(directory.path().join(FILES[0]), written(2, 1, b"a"))
                .expect("there is space");
        }
        fs::write(directory.path().join(FILES[file]), &bytes).expect("there is space");
        let refused = contents(directory.path(), 0).expect_err("block 2 is missing");
        assert!(matches!(refused, ScanError::Damaged(_)), "{gap} bytes in front: {refused}");
        bytes.truncate(bytes.len() - 8);
        fs::write(directory.path().join(FILES[file]), &bytes).expect("there is space");
        let found = contents(directory.path(), 0).expect("the newer one is torn");
        assert_eq!(found, [(1, b"a".to_vec())], "{gap} bytes in front");
    }
}
