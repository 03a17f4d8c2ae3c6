//! To be filled.

use crate::config::Config;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no daemon yet.
    #[error("not built yet")]
    Unfinished,
}

impl ServiceError {
    /// The exit code of the process: 69 a needed service is unavailable, 70 internal fault.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        70
    }
}

/// Runs the daemon until it is told to stop.
#[expect(clippy::unused_async, reason = "the signature the daemon will have")]
pub async fn run(_: Config) -> Result<(), ServiceError> {
    Err(ServiceError::Unfinished)
}
