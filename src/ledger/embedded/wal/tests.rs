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
            prop_assert_eq!(contents(directory.path(), merged).expect("it is sound"), expected);
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
