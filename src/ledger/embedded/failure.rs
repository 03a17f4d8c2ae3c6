//! How the embedded ledger fails while it runs.

use crate::ledger::LedgerError;
use crate::ledger::embedded::threads::Panicked;
use crate::ledger::error::WriterFailure;

impl WriterFailure {
    /// Whether the cause is a disk without space.
    pub(crate) fn is_want_of_space(&self) -> bool {
        matches!(self.cause(), Some(LedgerError::Unavailable(_)))
    }
}

impl From<Panicked> for WriterFailure {
    fn from(panicked: Panicked) -> Self {
        Self::new("running", panicked)
    }
}

/// Wraps an error with what failed.
pub(crate) fn failed<E: std::error::Error + Send + Sync + 'static>(
    doing: &'static str,
) -> impl FnOnce(E) -> WriterFailure {
    move |source| WriterFailure::new(doing, source)
}
