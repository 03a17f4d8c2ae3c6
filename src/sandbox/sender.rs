//! Plays Segment: posts signed sample traffic to the public listener, as single events and in batches, and
//! retries what was not accepted, as Segment does.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::task::{JoinError, JoinSet};
use url::Url;

use super::{Event, Traffic, sign};
use crate::json;
use crate::secret::Secret;

/// Most requests in flight.
const MOST_POSTS: usize = 4;
/// Segment's [default for a batch](crate::design::segment::requests).
const LARGEST_BATCH: u64 = 1000;
/// Batch sizes of endless traffic, in turn. It is for watching: mostly single events, now and then a batch.
const CALM_SIZES: [u64; 8] = [1, 1, 2, 1, 12, 1, 6, 2];
/// How long Segment waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const MOST_ATTEMPTS: u32 = 30;

/// Why an event could not be delivered to the daemon.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// Refused with an answer that no retry would change.
    #[error("a sample event was answered {status}: {answer}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// The answer's body.
        answer: String,
    },
    /// Not accepted after the last attempt.
    #[error("a sample event was not accepted: {0}")]
    GivenUp(String),
    /// A request panicked.
    #[error("a request panicked")]
    Panicked(#[from] JoinError),
}

/// How many events were posted so far, and how many the daemon accepted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Posted {
    pub events: u64,
    pub accepted: u64,
}

/// Posts the events of [`Traffic`] and the events of the acts.
pub(super) struct Sender {
    traffic: Traffic,
    latest: Option<Event>,
    /// How many events are left to post; `None` is endless.
    left: Option<u64>,
    batch_events: u64,
    turn: usize,
    posted: Posted,
    post_office: PostOffice,
    in_flight: JoinSet<Result<u64, PostError>>,
}

impl Sender {
    pub(super) fn new(
        traffic: Traffic,
        events: Option<u64>,
        url: Url,
        secret: Secret,
    ) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(ANSWER_TIMEOUT)
            .build()?;
        Ok(Self {
            traffic,
            latest: None,
            left: events,
            batch_events: (events.unwrap_or_default() / 20).clamp(2, LARGEST_BATCH),
            turn: 0,
            posted: Posted::default(),
            post_office: PostOffice { client, url, secret },
            in_flight: JoinSet::new(),
        })
    }

    pub(super) fn posted(&self) -> Posted {
        self.posted
    }

    pub(super) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The last event posted.
    pub(super) fn latest(&self) -> Option<&Event> {
        self.latest.as_ref()
    }

    /// Posts no further events.
    pub(super) fn stop(&mut self) {
        self.left = Some(0);
    }

    pub(super) fn has_stopped(&self) -> bool {
        self.left == Some(0)
    }

    /// Whether everything has been posted and answered.
    pub(super) fn is_done(&self) -> bool {
        self.has_stopped() && !self.awaits_answers()
    }

    pub(super) fn awaits_answers(&self) -> bool {
        !self.in_flight.is_empty()
    }

    pub(super) fn may_post(&self) -> bool {
        !self.has_stopped() && self.in_flight.len() < MOST_POSTS
    }

    /// Starts posting the next request.
    pub(super) fn post(&mut self) {
        let events = self.next_size();
        let mut body = String::new();
        let mut signature = String::new();
        for event in self.traffic.by_ref().take(usize::try_from(events).unwrap_or(usize::MAX)) {
            if body.is_empty() {
                signature = sign(&self.post_office.secret, event.body.as_bytes());
            }
            body.push(if body.is_empty() { '[' } else { ',' });
            body.push_str(&event.body);
            self.latest = Some(event);
        }
        if events == 1 {
            body.remove(0); // a single event is posted without an array
        } else {
            body.push(']');
        }
        self.turn += 1;
        self.posted.events += events;
        self.left = self.left.map(|left| left - events);
        let post_office = self.post_office.clone();
        self.in_flight.spawn(async move { post_office.post(body, &signature).await });
    }

    /// Starts posting a request with these events, which are not part of the traffic.
    pub(super) fn post_aside(&mut self, events: &[Value]) {
        let texts: Vec<String> = events.iter().map(Value::to_string).collect();
        let Some(first) = texts.first() else { return };
        let signature = sign(&self.post_office.secret, first.as_bytes());
        let body = if texts.len() == 1 { first.clone() } else { format!("[{}]", texts.join(",")) };
        self.posted.events += texts.len() as u64;
        let post_office = self.post_office.clone();
        self.in_flight.spawn(async move { post_office.post(body, &signature).await });
    }

    fn next_size(&self) -> u64 {
        match self.left {
            None => CALM_SIZES[self.turn % CALM_SIZES.len()],
            Some(_) if self.turn.is_multiple_of(4) => 1,
            Some(left) => self.batch_events.min(left),
        }
    }

    /// Waits for the next answer. Cancel safe.
    pub(super) async fn answered(&mut self) -> Result<(), PostError> {
        if let Some(accepted) = self.in_flight.join_next().await {
            self.posted.accepted += accepted??;
        }
        Ok(())
    }
}

/// The way to the daemon's webhook.
#[derive(Clone)]
struct PostOffice {
    client: reqwest::Client,
    url: Url,
    secret: Secret,
}

impl PostOffice {
    /// Returns how many events were accepted.
    async fn post(&self, body: String, signature: &str) -> Result<u64, PostError> {
        #[derive(Deserialize)]
        struct Answer {
            accepted: u64,
        }
        let body = bytes::Bytes::from(body); // shared by the attempts
        let mut attempts = 1;
        loop {
            let request = self.client.post(self.url.clone()).header("x-signature", signature);
            let answer = match request.body(body.clone()).send().await {
                Ok(answer) => {
                    let status = answer.status();
                    answer.text().await.map(|text| (status, text))
                }
                Err(error) => Err(error),
            };
            let why = match answer {
                Ok((status, text)) if status.is_server_error() => format!("{status}: {text}"),
                Ok((status, answer)) => {
                    let parsed = json::from_str(&answer).ok().filter(|_| status.is_success());
                    return parsed
                        .map(|Answer { accepted }| accepted)
                        .ok_or_else(|| PostError::Refused { status: status.as_u16(), answer });
                }
                Err(error) => error.to_string(),
            };
            if attempts == MOST_ATTEMPTS {
                return Err(PostError::GivenUp(why));
            }
            attempts += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }
}
