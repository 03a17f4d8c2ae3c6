//! To be filled.

use crate::service::ServiceError;

/// Runs the daemon against a stand-in for LaunchDarkly, with sample traffic.
#[expect(clippy::unused_async, reason = "the signature the sandbox will have")]
pub async fn run(_: Option<u64>) -> Result<(), ServiceError> {
    Err(ServiceError::Unfinished)
}
