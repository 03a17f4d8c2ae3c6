//! Work that would hold up others on a thread of the runtime.

use http::StatusCode;
use tokio::task::spawn_blocking;

use crate::operate::api::Problem;

/// Runs it on a thread of its own.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    spawn_blocking(work).await.map_err(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the comparison with the ledger was broken off",
        )
    })
}
