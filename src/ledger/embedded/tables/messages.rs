//! Messages whose event time depends on their arrival, remembered for as long as their sender may repeat
//! them: a repeat counts at the time of the first arrival, even if its own time, which was ahead then, would
//! be believed by now.
//!
//! Only a keyed hash is kept. A message is remembered in the same transaction as its changes.
//!
//! # What does not hold
//! A message repeated after [`MESSAGE_KEPT`], or after [`MOST`] others, counts as new. A deletion without a message
//! id is identified by its text: two with the same text within that time, and without a time of their own,
//! count as one. Any other event without an id always counts as new.

use hashbrown::HashSet;
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::ledger::embedded::tables::checksum::{self, Checksum};
use crate::ledger::intake::MESSAGE_KEPT;
use crate::membership::Timestamp;

/// Most messages that are remembered: about 100 MB on the disk, and 50 a second over the time that they are
/// kept. The oldest go first.
const MOST: u64 = 1 << 20;
/// Oldest messages erased when a new one finds no room.
const AT_ONCE: u64 = 16;

/// A keyed hash of a message of one destination.
pub(crate) type Message = [u8; 16];

/// The time at which a message counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub at: Timestamp,
    /// The message was recorded before.
    pub is_repeat: bool,
}

/// Counts the remembered messages.
#[derive(Debug)]
pub(crate) struct Messages {
    count: u64,
    most: u64,
    /// Messages of the request that is being applied, which are no repeats: one event may change several
    /// members.
    fresh: HashSet<Message>,
}

impl Messages {
    pub fn open(db: &Connection) -> rusqlite::Result<Self> {
        let mut messages = Self { count: 0, most: MOST, fresh: HashSet::new() };
        messages.reload(db)?;
        Ok(messages)
    }

    /// Reads the number of messages, at opening and after a rollback.
    pub fn reload(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.fresh.clear();
        self.count = db.query_row("SELECT count(*) FROM message", [], |row| row.get(0))?;
        Ok(())
    }

    /// The following messages belong to another request.
    pub fn next_request(&mut self) {
        if !self.fresh.is_empty() {
            self.fresh = HashSet::new();
        }
    }

    /// The time at which a message counts, which is `at` if it is new. If it `moves` (its time depends on its
    /// arrival) and is new, it is remembered from `stamp` on, a fresh stamp.
    pub fn count(
        &mut self,
        db: &Connection,
        message: Message,
        moves: bool,
        at: Timestamp,
        stamp: Timestamp,
    ) -> rusqlite::Result<Counts> {
        if self.count == 0 && !moves {
            return Ok(Counts { at, is_repeat: false }); // the usual case costs no query
        }
        let known = db
            .prepare_cached(
                "SELECT seen_at, message, counts_at, checksum FROM message WHERE message = ?1",
            )?
            .query_row([message], remembered)
            .optional()?;
        match known {
            Some((seen_at, counts_at)) if seen_at > stamp.before(MESSAGE_KEPT) => {
                let is_repeat = !self.fresh.contains(&message);
                return Ok(Counts { at: counts_at, is_repeat });
            }
            _ if !moves => return Ok(Counts { at, is_repeat: false }),
            Some(_) => {} // expired: replaced below
            None => self.count += 1,
        }
        keep(db, &message, stamp, at)?;
        self.fresh.insert(message);
        if self.count > self.most {
            let most = AT_ONCE.min(self.count - self.most);
            self.erase_oldest(db, most, Timestamp(i64::MAX))?;
        }
        Ok(Counts { at, is_repeat: false })
    }

    /// Erases a slice of the expired messages. `true`: there are more.
    pub fn purge_slice(
        &mut self,
        db: &Connection,
        now: Timestamp,
        limit: usize,
    ) -> rusqlite::Result<bool> {
        Ok(self.erase_oldest(db, limit as u64, now.before(MESSAGE_KEPT))? == limit)
    }

    fn erase_oldest(
        &mut self,
        db: &Connection,
        most: u64,
        before: Timestamp,
    ) -> rusqlite::Result<usize> {
        let erased = db
            .prepare_cached(
                "DELETE FROM message WHERE seen_at IN (
                     SELECT seen_at FROM message WHERE seen_at < ?2 ORDER BY seen_at LIMIT ?1)",
            )?
            .execute(params![most, before.0])?;
        self.count = self.count.saturating_sub(erased as u64);
        Ok(erased)
    }
}

/// Remembers a message from `seen_at` on, in place of one of that moment.
pub(crate) fn keep(
    db: &Connection,
    message: &Message,
    seen_at: Timestamp,
    counts_at: Timestamp,
) -> rusqlite::Result<()> {
    let checksum = checksum_of(seen_at.0, message, counts_at.0);
    db.prepare_cached("INSERT OR REPLACE INTO message VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![seen_at.0, message, counts_at.0, checksum])?;
    Ok(())
}

/// Decodes and verifies a row: since when the message is remembered, and the time at which it counts.
fn remembered(row: &Row<'_>) -> rusqlite::Result<(Timestamp, Timestamp)> {
    let (seen_at, message, at): (i64, Message, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
    checksum::verify(
        row.get(3)?,
        || checksum_of(seen_at, &message, at),
        "a remembered message id",
    )?;
    Ok((Timestamp(seen_at), Timestamp(at)))
}

fn checksum_of(seen_at: i64, message: &Message, at: i64) -> u32 {
    Checksum::new().number(seen_at).bytes(message).number(at).finish()
}

/// Verifies every message; damage is an error.
pub(crate) fn verify_all(db: &Connection) -> rusqlite::Result<()> {
    db.prepare("SELECT seen_at, message, counts_at, checksum FROM message")?
        .query_map([], |row| remembered(row).map(|_| ()))?
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::embedded::tables::schema;

    fn opened() -> (Connection, Messages) {
        let db = Connection::open_in_memory().expect("memory");
        schema::make(&db).expect("the tables of a new ledger");
        let messages = Messages::open(&db).expect("readable");
        (db, messages)
    }

    fn stamp(seconds: i64) -> Timestamp {
        Timestamp(1_750_000_000_000_000 + seconds * 1_000_000)
    }

    #[test]
    fn one_that_comes_again_counts_as_it_did_the_first_time_for_as_long_as_it_is_kept() {
        let (db, mut messages) = opened();
        let kept = i64::try_from(MESSAGE_KEPT.as_secs()).expect("hours");
        let mut count = |at: i64| {
            messages.next_request();
            messages.count(&db, [1; 16], true, stamp(at), stamp(at)).expect("it can be written")
        };
        assert_eq!(count(0), Counts { at: stamp(0), is_repeat: false });
        assert_eq!(count(4 * 3600), Counts { at: stamp(0), is_repeat: true });
        assert_eq!(count(kept - 1), Counts { at: stamp(0), is_repeat: true });
        assert_eq!(count(kept), Counts { at: stamp(kept), is_repeat: false }, "purged or not");
        assert_eq!(count(kept + 1), Counts { at: stamp(kept), is_repeat: true });
        verify_all(&db).expect("as they were written");
        assert_eq!(messages.count, 1);
    }

    #[test]
    fn one_that_is_believed_now_counts_as_it_did_when_it_was_not_and_is_not_remembered() {
        let (db, mut messages) = opened();
        let mut count = |number: u8, moves, at, seconds| {
            messages.next_request();
            let counts = messages.count(&db, [number; 16], moves, stamp(at), stamp(seconds));
            counts.expect("it can be written")
        };
        for seconds in [0, 1] {
            let counts = count(1, false, 600, seconds);
            assert_eq!(counts, Counts { at: stamp(600), is_repeat: false });
        }
        assert_eq!(count(2, true, 2, 2), Counts { at: stamp(2), is_repeat: false });
        assert_eq!(count(2, false, 600, 400), Counts { at: stamp(2), is_repeat: true });
        assert_eq!(count(1, false, 600, 401), Counts { at: stamp(600), is_repeat: false });
        assert_eq!(messages.count, 1);
    }

    #[test]
    fn within_one_request_it_is_one_event() {
        let (db, mut messages) = opened();
        for seconds in [0, 1] {
            let counts =
                messages.count(&db, [1; 16], true, stamp(0), stamp(seconds)).expect("room");
            assert_eq!(counts, Counts { at: stamp(0), is_repeat: false });
        }
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_they_are_too_old() {
        let (db, mut messages) = opened();
        messages.most = 3;
        let mut known = |number: u8, seconds| {
            messages.next_request();
            let counts = messages.count(&db, [number; 16], true, stamp(seconds), stamp(seconds));
            counts.expect("it can be written").is_repeat
        };
        assert_eq!([1, 2, 3, 4].map(|number| known(number, number.into())), [false; 4]);
        assert_eq!([2, 3, 4].map(|number| known(number, 10 + i64::from(number))), [true; 3]);
        assert!(!known(1, 20), "it went when the fourth came");
        assert_eq!(messages.count, 3);

        let kept = i64::try_from(MESSAGE_KEPT.as_secs()).expect("hours");
        assert!(!messages.purge_slice(&db, stamp(kept + 4), 500).expect("it can be written"));
        assert_eq!(messages.count, 2, "the third went; the fourth is kept to the end of its time");
        messages.reload(&db).expect("readable");
        assert_eq!(messages.count, 2);
    }
}
