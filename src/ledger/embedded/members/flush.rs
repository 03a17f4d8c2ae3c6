//! Writes the rows of dirty members that a flush has taken out of the memtable.

use rusqlite::Connection;

use crate::ledger::embedded::memtable::{FlushSlice, Row};
use crate::ledger::embedded::tables::members::{Stored, Storing, TOGETHER};

/// Writes the rows of these members.
pub(crate) fn write(taken: &FlushSlice, db: &Connection) -> rusqlite::Result<()> {
    let mut storing = Storing::into(db);
    for (audience, slots) in &taken.0 {
        for run in slots.chunk_by(|one, next| one.is_new() && next.is_new()) {
            let mut together = run.chunks_exact(TOGETHER);
            for new in together.by_ref() {
                let mut insert = storing.insert_together()?;
                for (slot, now) in new.iter().filter_map(|slot| Some((slot, slot.now()?))) {
                    slot.key.show(|key| insert.add(*audience, key, &now))?;
                }
                insert.insert()?;
            }
            for slot in together.remainder() {
                let row = slot.row().map(|Row { keeps_since }| Stored { keeps_since });
                let now = slot.now();
                if row.is_some() || now.is_some() {
                    slot.key.show(|key| storing.store(*audience, key, row, now.as_ref()))?;
                }
            }
        }
    }
    Ok(())
}
