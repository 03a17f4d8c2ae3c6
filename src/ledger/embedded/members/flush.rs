//! Writes the rows of dirty members that a flush has taken out of the memtable.

use std::hint::black_box;

use rusqlite::Connection;

use crate::ledger::embedded::memtable::{AT_ONCE, FlushSlice, Row};
use crate::ledger::embedded::tables::members::{Stored, Storing, TOGETHER};

/// Writes the rows of these members.
pub(crate) fn write(taken: &FlushSlice, db: &Connection) -> rusqlite::Result<()> {
    let mut storing = Storing::into(db);
    let pieces = taken
        .0
        .iter()
        .flat_map(|(audience, slots)| slots.chunks(AT_ONCE).map(|some| (*audience, some)));
    for (audience, some) in pieces {
        // Long keys are on the heap: touching them together lets the cache misses overlap.
        let texts = some.iter().filter(|slot| slot.key.is_elsewhere());
        black_box(texts.filter(|slot| slot.key.show(|text| text.starts_with('\0'))).count());
        for run in some.chunk_by(|one, next| one.is_new() && next.is_new()) {
            let mut together = run.chunks_exact(TOGETHER);
            for new in together.by_ref() {
                let mut insert = storing.insert_together()?;
                for (slot, now) in new.iter().filter_map(|slot| Some((slot, slot.now()?))) {
                    slot.key.show(|key| insert.add(audience, key, &now))?;
                }
                insert.insert()?;
            }
            for slot in together.remainder() {
                let row = slot.row().map(|Row { keeps_since }| Stored { keeps_since });
                let now = slot.now();
                if row.is_some() || now.is_some() {
                    slot.key.show(|key| storing.store(audience, key, row, now.as_ref()))?;
                }
            }
        }
    }
    Ok(())
}
