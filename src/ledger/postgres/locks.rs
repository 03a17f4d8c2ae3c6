//! Who may write to a destination at the same time.

use tokio_postgres::types::Type;

use crate::ledger::postgres::failure::Failure;
use crate::ledger::postgres::pool::Tx;

/// How a transaction holds a destination, until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lock {
    /// Others write as well: members that are there or come, in audiences that are there.
    Shared,
    /// Nobody else writes: audiences come, go or change, persons are deleted, or a transaction is done again because
    /// others were in its way.
    Exclusive,
}

impl Lock {
    /// How to hold a destination at this attempt.
    pub fn at(attempt: u32) -> Self {
        if attempt == 0 { Self::Shared } else { Self::Exclusive }
    }

    /// Waits for it.
    pub async fn hold(self, tx: &Tx, destination_no: i32) -> Result<(), Failure> {
        self.hold_all(tx, &[destination_no]).await
    }

    /// Waits for all of them, in the order of their numbers, which is how they are given.
    pub async fn hold_all(self, tx: &Tx, numbers: &[i32]) -> Result<(), Failure> {
        if numbers.is_empty() {
            return Ok(());
        }
        // The table sets these locks apart from others of the database, and from those of another ledger in it.
        let sql = match self {
            Self::Shared => {
                "SELECT pg_advisory_xact_lock_shared('destination'::regclass::oid::int4, no) FROM unnest($1) no"
            }
            Self::Exclusive => {
                "SELECT pg_advisory_xact_lock('destination'::regclass::oid::int4, no) FROM unnest($1) no"
            }
        };
        tx.steady_query(sql, &[(&numbers, Type::INT4_ARRAY)]).await.map(|_| ())
    }
}

/// Makes sure that this process still owns the destination, until the transaction ends.
pub(crate) async fn holds(tx: &Tx, destination_no: i32, token: i64) -> Result<(), Failure> {
    let sql = "SELECT 1 FROM lease WHERE destination_no = $1 AND token = $2 FOR SHARE";
    let row = tx.first(sql, &[(&destination_no, Type::INT4), (&token, Type::INT8)]).await?;
    row.map(|_| ()).ok_or(Failure::Stale)
}
