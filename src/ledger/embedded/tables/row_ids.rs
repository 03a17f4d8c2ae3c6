//! How the ids of rows are stored: as the integers that they are.

use rusqlite::types::{FromSql, FromSqlResult, ToSql, ToSqlOutput, ValueRef};

use crate::ledger::embedded::ids::{AudienceRowId, DestinationRowId};

macro_rules! stored {
    ($($row:ident)*) => {$(
        impl ToSql for $row {
            fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
                self.0.to_sql()
            }
        }

        impl FromSql for $row {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                i64::column_result(value).map(Self)
            }
        }
    )*};
}

stored!(DestinationRowId AudienceRowId);
