//! How the ledger fails while it runs.

use crate::ledger::LedgerError;
use crate::ledger::embedded::threads::Panicked;

/// Why the writer ended by itself. The daemon must end too: what is on the disk is now unknown.
#[derive(Debug, thiserror::Error)]
#[error("the ledger failed while {doing}")]
pub struct WriterFailure {
    doing: &'static str,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl WriterFailure {
    /// Whether the cause is a disk without space.
    pub(crate) fn is_want_of_space(&self) -> bool {
        matches!(self.source.downcast_ref(), Some(LedgerError::Unavailable(_)))
    }

    pub(crate) fn new(
        doing: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self { doing, source: source.into() }
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
