//! Checks whether LaunchDarkly knows the [credentials](crate::design::launchdarkly::credentials), with
//! two requests that change nothing there.

use std::fmt;
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use reqwest::RequestBuilder;
use url::Url;

use super::client::Endpoint;
use super::connection::{self, ClientError};

/// The result of one check.
#[derive(Debug)]
pub enum Verdict {
    /// LaunchDarkly knows the ID or token.
    Known,
    /// LaunchDarkly does not know it or does not accept it.
    Refused(StatusCode),
    /// An answer that LaunchDarkly does not give to this request.
    Unclear {
        /// The base URL of the request.
        asked: Url,
        /// The status of the answer.
        status: StatusCode,
    },
    /// There was no answer.
    Unreached {
        /// The base URL of the request.
        asked: Url,
        /// Why, without the URL, which may contain the client-side ID.
        source: reqwest::Error,
    },
}

/// Checks the credentials of one destination.
pub struct CredentialsCheck {
    http: reqwest::Client,
    base_url: Url,
    client_sdk_url: Url,
    client_side_id: String,
    token: HeaderValue,
}

impl fmt::Debug for CredentialsCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialsCheck")
            .field("host", &self.base_url.host_str())
            .finish_non_exhaustive()
    }
}

impl CredentialsCheck {
    /// Prepares the checks, each with the timeout `patience`. Reads `ca_file`, so it may block for a
    /// moment.
    pub fn new(
        endpoint: &Endpoint,
        client_sdk_url: &Url,
        patience: Duration,
    ) -> Result<Self, ClientError> {
        let urls = [&endpoint.base_url, client_sdk_url];
        let http = connection::to(urls, endpoint.proxy.as_ref(), endpoint.ca_file.as_deref())?
            .timeout(patience)
            .build()
            .map_err(ClientError::Build)?;
        Ok(Self {
            http,
            base_url: endpoint.base_url.clone(),
            client_sdk_url: client_sdk_url.clone(),
            client_side_id: endpoint.client_side_id.clone(),
            token: connection::token_header(&endpoint.service_token)?,
        })
    }

    /// Whether LaunchDarkly knows an environment with this client-side ID. The token is not sent.
    pub async fn client_side_id(&self) -> Verdict {
        let asked = &self.client_sdk_url;
        let url = connection::below(asked, ["sdk", "goals", &self.client_side_id]);
        ask(asked, self.http.head(url), &[StatusCode::NOT_FOUND]).await
    }

    /// Whether LaunchDarkly accepts the service token. It also accepts one without any rights.
    pub async fn service_token(&self) -> Verdict {
        let asked = &self.base_url;
        let url = connection::below(asked, ["api", "v2", "versions"]);
        let question = self.http.get(url).header(AUTHORIZATION, &self.token);
        ask(asked, question, &[StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN]).await
    }
}

async fn ask(asked: &Url, question: RequestBuilder, refusals: &[StatusCode]) -> Verdict {
    let asked = asked.clone();
    match question.send().await.map(|answer| answer.status()) {
        Ok(StatusCode::OK) => Verdict::Known,
        Ok(status) if refusals.contains(&status) => Verdict::Refused(status),
        Ok(status) => Verdict::Unclear { asked, status },
        Err(source) => Verdict::Unreached { asked, source: source.without_url() },
    }
}
