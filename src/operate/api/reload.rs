//! The configuration read again, because an operator asks.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::wire::{Nothing, Reloaded};
use super::{Api, Change, Problem};

/// Where the answer goes: what was changed, or why nothing was.
pub type Asked = oneshot::Sender<Result<Reloaded, String>>;

/// Questions that may wait for a reload that is under way.
const WAITING: usize = 16;

/// The way to whoever reads the configuration again.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Asked>);

impl Reloads {
    /// Both ends of it. Without the other end nothing can be read again.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }
}

pub(super) async fn reload(
    State(api): State<Arc<Api>>,
    Change(Nothing {}): Change<Nothing>,
) -> Result<Json<Reloaded>, Problem> {
    tracing::info!(audit = true, "operator: the configuration is to be read again");
    let (asked, answer) = oneshot::channel();
    if api.reloads.0.send(asked).await.is_err() {
        let detail = "this daemon has no configuration that could be read again";
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    match answer.await {
        Ok(Ok(reloaded)) => Ok(Json(reloaded)),
        Ok(Err(why)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
    }
}
