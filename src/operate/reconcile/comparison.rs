//! Compares the sorted keys of a snapshot with the sorted members of an audience: pure, a part at a time.

use std::collections::VecDeque;
use std::io;
use std::iter::Peekable;

use super::spool::Entry;
use crate::ledger::Standing;
use crate::membership::{ContextKey, Timestamp};

/// What the snapshot means for one member.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::operate) enum Finding {
    /// It is in the snapshot only.
    Enters(Entry),
    /// It is in the ledger only.
    Leaves(ContextKey),
    /// It is in both.
    Stays {
        /// As the snapshot has it.
        entry: Entry,
        /// What the ledger knows of it is older than the snapshot.
        is_older: bool,
    },
    /// It is in neither, and the ledger remembers that it left.
    StaysOut(ContextKey),
    /// They differ, and the ledger knows something newer.
    Newer {
        /// The member.
        key: ContextKey,
        /// Whether the ledger has it in the audience.
        is_in: bool,
    },
}

/// Compares until the page is used up, unless the `ledger_ended` with it, or until there are `most` findings.
/// `true`: both sides are used up.
pub(in crate::operate) fn compare(
    snapshot: &mut Peekable<impl Iterator<Item = io::Result<Entry>>>,
    (page, ledger_ended): (&mut VecDeque<Standing>, bool),
    as_of: Timestamp,
    most: usize,
    found: &mut Vec<Finding>,
) -> io::Result<bool> {
    while found.len() < most {
        if page.is_empty() && !ledger_ended {
            return Ok(false);
        }
        // A failed read is taken out of the iterator to be returned.
        if let Some(Err(_)) = snapshot.peek() {
            snapshot.next().transpose()?;
        }
        let named = match snapshot.peek() {
            Some(Ok(entry)) => Some(entry.key.as_str()),
            _ => None,
        };
        let order = match (named, page.front()) {
            (None, None) => return Ok(true),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(key), Some(member)) => key.cmp(member.context_key.as_str()),
        };
        let entry = if order.is_le() { snapshot.next().transpose()? } else { None };
        let member = if order.is_ge() { page.pop_front() } else { None };
        found.extend(finding(entry, member, as_of));
    }
    Ok(false)
}

/// A tie goes to the snapshot, which is the later arrival.
fn finding(entry: Option<Entry>, member: Option<Standing>, as_of: Timestamp) -> Option<Finding> {
    match (entry, member) {
        (Some(entry), Some(member)) if member.included => {
            Some(Finding::Stays { entry, is_older: member.event_at < as_of })
        }
        (None, Some(member)) if !member.included => Some(Finding::StaysOut(member.context_key)),
        (_, Some(member)) if member.event_at > as_of => {
            Some(Finding::Newer { key: member.context_key, is_in: member.included })
        }
        (Some(entry), _) => Some(Finding::Enters(entry)),
        (None, Some(member)) => Some(Finding::Leaves(member.context_key)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    type Row = (bool, Option<(bool, i64)>, &'static str);
    type Ledger = BTreeMap<String, (bool, i64)>;

    fn entry(key: &str) -> Entry {
        Entry { key: key.to_owned(), user_id: None }
    }

    /// Compares in parts, with pages and findings of these sizes.
    fn compared(
        file: &BTreeSet<String>,
        ledger: &Ledger,
        as_of: i64,
        page: usize,
        most: usize,
    ) -> Vec<Finding> {
        let mut rest = ledger.iter().map(|(key, (included, event_at))| Standing {
            context_key: ContextKey::new(key).expect("not empty"),
            included: *included,
            event_at: Timestamp(*event_at),
        });
        let mut snapshot = file.iter().map(|key| Ok(entry(key))).peekable();
        let (mut held, mut ended, mut all) = (VecDeque::new(), false, Vec::new());
        loop {
            if held.is_empty() && !ended {
                held.extend(rest.by_ref().take(page));
                ended = held.len() < page;
            }
            let mut found = Vec::new();
            let side = (&mut held, ended);
            let is_over = compare(&mut snapshot, side, Timestamp(as_of), most, &mut found);
            all.extend(found);
            if is_over.expect("nothing fails") {
                return all;
            }
        }
    }

    #[test]
    fn a_member_enters_leaves_or_is_left_alone() {
        // in the file; in the ledger: whether it is in, and since when; then what follows at time 5
        let rows: [Row; 12] = [
            (true, None, "enters"),
            (true, Some((false, 4)), "enters"),
            (true, Some((false, 5)), "enters"),
            (true, Some((false, 6)), "newer out"),
            (true, Some((true, 4)), "stays, older"),
            (true, Some((true, 5)), "stays"),
            (true, Some((true, 6)), "stays"),
            (false, Some((true, 4)), "leaves"),
            (false, Some((true, 5)), "leaves"),
            (false, Some((true, 6)), "newer in"),
            (false, Some((false, 4)), "out"),
            (false, Some((false, 6)), "out"),
        ];
        for (is_named, member, expected) in rows {
            let file = is_named.then(|| "ada".to_owned()).into_iter().collect();
            let ledger = member.map(|of| ("ada".to_owned(), of)).into_iter().collect();
            let found = compared(&file, &ledger, 5, 1, 1);
            let words: Vec<&str> = found
                .iter()
                .map(|of| match of {
                    Finding::Enters(_) => "enters",
                    Finding::Leaves(_) => "leaves",
                    Finding::Stays { is_older: true, .. } => "stays, older",
                    Finding::Stays { .. } => "stays",
                    Finding::StaysOut(_) => "out",
                    Finding::Newer { is_in: true, .. } => "newer in",
                    Finding::Newer { .. } => "newer out",
                })
                .collect();
            assert_eq!(words.concat(), expected, "{is_named} {member:?}");
        }
    }

    proptest! {
        #![proptest_config(crate::seeds::kept_in("tests/seeds/comparison.txt"))]

        /// Whatever the sizes of the parts: the ledger with the changes is the file, but for what is newer.
        #[test]
        fn the_ledger_becomes_the_file_but_for_what_is_newer(
            file in prop::collection::btree_set("[a-c]{1,3}", 0..20),
            ledger in prop::collection::btree_map("[a-c]{1,3}", (any::<bool>(), 0..10_i64), 0..20),
            as_of in 0..10_i64,
            page in 1..5_usize,
            most in 1..5_usize,
        ) {
            let mut after = ledger.clone();
            for finding in compared(&file, &ledger, as_of, page, most) {
                match finding {
                    Finding::Enters(entry) => { after.insert(entry.key, (true, as_of)); }
                    Finding::Leaves(key) => { after.insert(key.as_str().to_owned(), (false, as_of)); }
                    Finding::Stays { .. } | Finding::StaysOut(_) | Finding::Newer { .. } => {}
                }
            }
            let in_now = after.iter().filter(|(_, (is_in, _))| *is_in).map(|(key, _)| key.clone());
            let is_newer = |key: &String| ledger.get(key).is_some_and(|(_, at)| *at > as_of);
            let newer = ledger.iter().filter(|(key, (is_in, _))| *is_in && is_newer(key));
            let kept = file.iter().filter(|key| !is_newer(key)).cloned();
            let expected: BTreeSet<String> = kept.chain(newer.map(|(key, _)| key.clone())).collect();
            prop_assert_eq!(in_now.collect::<BTreeSet<_>>(), expected);
        }
    }
}
