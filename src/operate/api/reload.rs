//! Reloading the configuration on an operator's request.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;
use tokio::sync::{mpsc, oneshot};

use super::wire::{Nothing, Reloaded};
use super::{Api, Change, Problem};

use crate::json::Json;

/// Receives the result of a reload: what was changed, or why nothing was.
pub type Asked = oneshot::Sender<Result<Reloaded, String>>;

/// Most requests that wait while a reload is under way.
const WAITING: usize = 16;

/// Sends reload requests to the part of the daemon that reads the configuration.
#[derive(Clone, Debug)]
pub struct Reloads(mpsc::Sender<Asked>);

impl Reloads {
    /// Both ends of the channel. If the receiver is dropped, reloads fail.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Asked>) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self(sender), receiver)
    }

    async fn ask(&self) -> Result<Reloaded, Problem> {
        let (asked, answer) = oneshot::channel();
        if self.0.send(asked).await.is_err() {
            let detail = "this daemon has no configuration to reload";
            return Err(Problem::new(StatusCode::CONFLICT, detail));
        }
        match answer.await {
            Ok(Ok(reloaded)) => Ok(reloaded),
            Ok(Err(why)) => Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, why)),
            Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
        }
    }
}

/// Reads the configuration again and applies the changes that need no restart
#[utoipa::path(
    post,
    path = "/api/v1/reload",
    operation_id = "reload",
    request_body = Nothing,
    responses(
        (status = 200, description = "What has changed", body = Reloaded),
        (status = 409, description = "This daemon has no configuration to reload"),
        (status = 422, description = "The configuration has faults, all of them named; nothing has \
            changed. Or the body is JSON, but not what this route expects"),
    )
)]
pub(super) async fn reload(
    State(api): State<Arc<Api>>,
    Change(Nothing {}): Change<Nothing>,
) -> Result<Json<Reloaded>, Problem> {
    tracing::info!(audit = true, "operator: configuration reload requested");
    api.reloads.ask().await.map(Json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_became_of_it_decides_the_status() {
        let (reloads, mut asked) = Reloads::channel();
        let mut answer = async |answer: Option<Result<Reloaded, String>>| {
            let ask = reloads.ask();
            let (said, ()) = tokio::join!(ask, async {
                let question = asked.recv().await.expect("it is asked");
                if let Some(answer) = answer {
                    question.send(answer).expect("it is waited for");
                }
            });
            said.map_err(|problem| (problem.status, problem.detail))
        };
        let reloaded = Reloaded { changed: vec!["stop".to_owned()], needs_restart: Vec::new() };
        assert_eq!(answer(Some(Ok(reloaded.clone()))).await, Ok(reloaded));
        let refused = (422, "config: 1 problem".to_owned());
        assert_eq!(answer(Some(Err(refused.1.clone()))).await, Err(refused));
        assert_eq!(answer(None).await, Err((503, "the daemon is stopping".to_owned())));
        drop(asked);
        assert_eq!(reloads.ask().await.map_err(|problem| problem.status), Err(409));
    }
}
