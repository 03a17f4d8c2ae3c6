//! Asking the running daemon through its admin listener.

use std::time::Duration;

use http::StatusCode;
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::reaching::{Reached, Trust, reach};
use super::{Exit, complain, unreached};
use crate::config::{Admin, Config};
use crate::operate::problem::Problem;
use crate::secret::Secret;

/// The daemon is on this host, as a rule; some answers take a few seconds of reading.
const PATIENCE: Duration = Duration::from_secs(60);

/// The running daemon, as far as its operators see it.
#[derive(Debug)]
pub(super) struct Daemon {
    client: reqwest::Client,
    url: Url,
    token: Option<Secret>,
}

/// Why there is no answer, in words, and how the command ends.
#[derive(Debug)]
pub(super) struct Silent {
    exit: Exit,
    words: String,
}

impl Silent {
    /// Says why to the person.
    pub fn complain(self, command: &str) -> Exit {
        complain(&format!("cohortd {command}: {}", self.words));
        self.exit
    }

    fn unreached(url: &Url, why: &str) -> Self {
        let words = format!("{url}: {why}; is the daemon running?");
        Self { exit: Exit::Unavailable, words }
    }

    /// The command line asks for what cannot be.
    pub fn usage(words: impl Into<String>) -> Self {
        Self { exit: Exit::BadUsage, words: words.into() }
    }
}

/// An answer, as it came and as it is understood.
pub(super) struct Answer<T> {
    pub text: String,
    pub value: T,
}

impl Daemon {
    /// The daemon of this configuration.
    pub fn of(config: &Config) -> Result<Self, Silent> {
        let Admin { address, tls, tokens, .. } = &config.admin;
        let Reached { client, url } = reach(*address, tls.as_ref(), Trust::Certificate, PATIENCE)
            .map_err(|why| Silent {
            exit: Exit::Unavailable,
            words: format!("{address}: {why}"),
        })?;
        Ok(Self { client, url, token: tokens.first().cloned() })
    }

    /// Asks for something.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &impl Serialize,
    ) -> Result<Answer<T>, Silent> {
        let url = self.at(path);
        self.ask(self.client.get(url).query(query)).await
    }

    /// Changes something.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Answer<T>, Silent> {
        let url = self.at(path);
        self.ask(self.client.post(url).json(body)).await
    }

    fn at(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(path);
        }
        url
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        mut question: reqwest::RequestBuilder,
    ) -> Result<Answer<T>, Silent> {
        let silent = |error| Silent::unreached(&self.url, &unreached(error));
        if let Some(token) = &self.token {
            question = question.bearer_auth(token.expose());
        }
        let answer = question.send().await.map_err(silent)?;
        let status = answer.status();
        let text = answer.text().await.map_err(silent)?;
        let foreign = || Silent {
            exit: Exit::Unavailable,
            words: format!("{} does not answer as cohortd does ({status})", self.url),
        };
        if status == StatusCode::OK {
            let value = serde_json::from_str(&text).map_err(|_| foreign())?;
            return Ok(Answer { text, value });
        }
        let Problem { detail, .. } = serde_json::from_str(&text).map_err(|_| foreign())?;
        let exit = if status.is_client_error() { Exit::BadUsage } else { Exit::Unavailable };
        Err(Silent { exit, words: detail })
    }
}
