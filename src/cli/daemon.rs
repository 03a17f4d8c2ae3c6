//! Requests to the running daemon through its admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};
use url::{Host, Url};

use super::reaching::{Reached, Trust, reach, reachable};
use super::{Exit, complain, to_the_daemon, unreached};
use crate::config::Access;
use crate::json;
use crate::launchdarkly::wire::USER_AGENT;
use crate::operate::problem::Problem;
use crate::secret::Secret;

/// Timeout of a request. The daemon is usually on this host, but some answers take a few seconds to read
/// from the ledger.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of a request that is answered when long work is done. A daemon that hangs is noticed by other means.
const WITHOUT_END: Duration = Duration::from_secs(30 * 24 * 3600);
/// Whoever has said nothing for so long is asked whether it lives, which a daemon answers however busy it is.
const DOUBT_AFTER: Duration = Duration::from_secs(5);
/// For the answer to that, and for an answer that has begun.
const SPEAKS_WITHIN: Duration = Duration::from_secs(5);

/// A client of the running daemon's admin listener.
#[derive(Debug)]
pub(super) struct Daemon {
    client: reqwest::Client,
    url: Url,
    token: Option<Secret>,
    /// Where the address came from; shown if nobody answers there.
    place: String,
    /// Where the token came from; shown if it is refused.
    credential: String,
}

/// Why a request failed, in words, and the command's exit.
#[derive(Debug)]
pub(super) struct Silent {
    exit: Exit,
    words: String,
    /// Whether the daemon answered that what was asked for does not exist.
    pub is_not_there: bool,
    /// Whether the daemon answered that it does not do it now.
    is_refused: bool,
}

impl Silent {
    /// Prints why the command failed.
    pub fn complain(self, command: &str) -> Exit {
        complain(&format!("cohortd {command}: {}", self.words));
        self.exit
    }

    /// The daemon, or the way to it, has failed.
    pub fn is_of_the_daemon(&self) -> bool {
        self.exit == Exit::Unavailable && !self.is_refused
    }

    /// The same behind some words.
    pub fn after(self, words: &str) -> Self {
        Self { words: format!("{words}{}", self.words), ..self }
    }

    fn unreached(url: &Url, why: &str, place: &str) -> Self {
        let words =
            format!("{url}: {why}; is the daemon running? `cohortd run` starts it. {place}");
        Self::with(Exit::Unavailable, words)
    }

    fn with(exit: Exit, words: impl Into<String>) -> Self {
        Self { exit, words: words.into(), is_not_there: false, is_refused: false }
    }

    /// The user pressed Ctrl-C.
    pub fn interrupted(words: impl Into<String>) -> Self {
        Self::with(Exit::Interrupted, words)
    }

    /// The command line asks for something impossible.
    pub fn usage(words: impl Into<String>) -> Self {
        Self::with(Exit::BadUsage, words)
    }
}

/// An answer: its text and its parsed value.
pub(super) struct Answer<T> {
    pub text: String,
    pub value: T,
}

impl Daemon {
    /// The daemon at `url`; without one, the daemon whose admin listener `access` describes.
    pub fn of(access: &Access, url: Option<Url>) -> Result<Self, Silent> {
        let Access { address, token, tls, from, .. } = access;
        let place = match &url {
            Some(_) => "The address is that of --url or COHORTD_ADMIN_URL".to_owned(),
            None => format!("--url asks elsewhere; this address was {from}"),
        };
        let credential = match token {
            Some(_) => format!(
                "the tokens in this configuration are not those that the daemon was started with; \
                 they were {from}"
            ),
            None => format!(
                "no token is configured here: the configuration was {from}; set \
                 COHORTD_ADMIN__TOKENS_FILE to a file with one"
            ),
        };
        let configured = || {
            let address = address.clone().map_err(|faults| Silent::usage(faults.to_string()))?;
            reach(address, tls.as_ref(), Trust::Certificate, PATIENCE)
                .map_err(|why| Silent::with(Exit::Unavailable, format!("{address}: {why}")))
        };
        let Reached { client, url } = match url {
            // The URL is the configured listener's, so the certificate to expect is known.
            Some(url) if tls.is_some() && is_at(&url, address.as_ref().ok()) => {
                Reached { url, ..configured()? }
            }
            Some(url) => {
                let built = to_the_daemon(PATIENCE).build().map_err(unreached);
                let client = built
                    .map_err(|why| Silent::with(Exit::Unavailable, format!("{url}: {why}")))?;
                Reached { client, url }
            }
            None => configured()?,
        };
        Ok(Self { client, url, token: token.clone(), place, credential })
    }

    /// Sends a GET request.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &impl Serialize,
    ) -> Result<Answer<T>, Silent> {
        let url = self.at(path);
        self.ask(self.client.get(url).query(query)).await
    }

    /// Sends a POST request.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &[&str],
        body: &impl Serialize,
    ) -> Result<Answer<T>, Silent> {
        let url = self.at(path);
        self.ask(self.client.post(url).json(body)).await
    }

    /// Sends a POST request with a body of any size; the answer may take as long as it takes.
    pub async fn upload<T: DeserializeOwned>(
        &self,
        path: &[&str],
        query: &impl Serialize,
        body: reqwest::Body,
    ) -> Result<Answer<T>, Silent> {
        let request = self.client.post(self.at(path)).query(query).timeout(WITHOUT_END);
        let request = request.header(header::CONTENT_TYPE, "application/octet-stream");
        self.ask(request.body(body)).await
    }

    fn at(&self, path: &[&str]) -> Url {
        below(&self.url, path)
    }

    /// Returns when it is clear that nothing is said there.
    async fn is_mute(&self) {
        sleep(DOUBT_AFTER).await;
        let probe = self.client.get(self.at(&["livez"])).timeout(SPEAKS_WITHIN).send();
        if probe.await.is_ok() {
            std::future::pending::<()>().await;
        }
    }

    fn mute(&self, method: &Method, path: &str) -> Silent {
        let waited_s = (DOUBT_AFTER + SPEAKS_WITHIN).as_secs();
        let done =
            if method == Method::GET { "" } else { "; whether it was carried out is unknown" };
        let words = format!(
            "{}: the connection was accepted, but {method} {path} was not answered within \
             {waited_s} s{done}; either this is not cohortd's admin listener, or the daemon \
             hangs. {}",
            self.url, self.place
        );
        Silent::with(Exit::Unavailable, words)
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        mut question: reqwest::RequestBuilder,
    ) -> Result<Answer<T>, Silent> {
        let silent = |error| Silent::unreached(&self.url, &unreached(error), &self.place);
        if let Some(token) = &self.token {
            question = question.bearer_auth(token.expose());
        }
        let question = question.build().map_err(silent)?;
        let (method, path) = (question.method().clone(), question.url().path().to_owned());
        let answer = tokio::select! {
            answer = self.client.execute(question) => answer.map_err(silent)?,
            () = self.is_mute() => return Err(self.mute(&method, &path)),
        };
        let status = answer.status();
        let version = another_version(answer.headers());
        let passes = answer.headers().contains_key(header::RETRY_AFTER);
        let text = match timeout(SPEAKS_WITHIN, answer.text()).await {
            Ok(text) => text.map_err(silent)?,
            Err(_) => return Err(self.mute(&method, &path)),
        };
        let foreign = || {
            let why = match status {
                StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT => {
                    "it may be a proxy that has lost or given up the daemon, which may go on all the same"
                }
                _ => "it is not an admin listener",
            };
            let words = format!(
                "{} does not answer like cohortd ({status}){version}: {why}. {}",
                self.url, self.place
            );
            Silent::with(Exit::Unavailable, words)
        };
        if status == StatusCode::OK {
            let value = json::from_str(&text).map_err(|_| foreign())?;
            return Ok(Answer { text, value });
        }
        let Problem { detail, .. } = json::from_str(&text).map_err(|_| foreign())?;
        let more = match status {
            StatusCode::UNAUTHORIZED => format!("; {}", self.credential),
            _ => String::new(),
        };
        let words = format!("{detail}{more}{version}");
        Err(Silent {
            is_not_there: status == StatusCode::NOT_FOUND,
            is_refused: status.is_client_error(),
            ..Silent::with(exit_of(status, passes), words)
        })
    }
}

/// The exit for an answer that is an error; `passes`: it says that the same may be asked later.
fn exit_of(status: StatusCode, passes: bool) -> Exit {
    let is_late = status == StatusCode::REQUEST_TIMEOUT; // the way there was slow
    if status.is_client_error() && !passes && !is_late { Exit::BadUsage } else { Exit::Unavailable }
}

/// Whether a URL points to a listener's address.
fn is_at(url: &Url, address: Option<&SocketAddr>) -> bool {
    let Some(listener) = address.copied().map(reachable) else { return false };
    let host = match url.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        Some(Host::Domain("localhost")) if listener.ip().is_loopback() => listener.ip(),
        _ => return false,
    };
    url.scheme() == "https"
        && url.port_or_known_default() == Some(listener.port())
        && host == listener.ip()
}

/// A remark for error messages if the daemon has another version than this command and so may not know the
/// request; else empty.
fn another_version(headers: &HeaderMap) -> String {
    let server = headers.get(header::SERVER).and_then(|server| server.to_str().ok());
    // A proxy in front may replace the header with its own name.
    let ours = |server: &&str| server.starts_with("cohortd/") && *server != USER_AGENT;
    match server.filter(ours) {
        Some(server) => format!(
            "; the daemon is {server} and this command is {USER_AGENT}: use the same version"
        ),
        None => String::new(),
    }
}

/// The URL of a route. Its parts are encoded here: [`Url`] would leave out line breaks and tabs.
fn below(base: &Url, path: &[&str]) -> Url {
    let mut url = base.clone();
    let mut whole = url.path().trim_end_matches('/').to_owned();
    for part in path {
        let encoded = url::form_urlencoded::byte_serialize(part.as_bytes()).collect::<String>();
        whole += "/";
        whole += &encoded.replace('+', "%20");
    }
    url.set_path(&whole);
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_key_holds_is_in_the_url() {
        let base = Url::parse("http://127.0.0.1:9/below/").expect("it is one");
        let rows = [
            ("ada", "ada"),
            ("a\nb\tc\r", "a%0Ab%09c%0D"),
            ("a+b c", "a%2Bb%20c"),
            ("a/b?c#d%41", "a%2Fb%3Fc%23d%2541"),
            ("ä\0", "%C3%A4%00"),
        ];
        for (key, expected) in rows {
            let url = below(&base, &["members", key]);
            assert_eq!(url.as_str(), format!("http://127.0.0.1:9/below/members/{expected}"));
        }
    }

    #[test]
    fn what_may_be_granted_later_is_no_bad_usage() {
        let rows = [
            (StatusCode::CONFLICT, false, Exit::BadUsage),
            (StatusCode::CONFLICT, true, Exit::Unavailable),
            (StatusCode::NOT_FOUND, false, Exit::BadUsage),
            (StatusCode::UNAUTHORIZED, false, Exit::BadUsage),
            (StatusCode::REQUEST_TIMEOUT, false, Exit::Unavailable),
            (StatusCode::SERVICE_UNAVAILABLE, true, Exit::Unavailable),
            (StatusCode::INTERNAL_SERVER_ERROR, false, Exit::Unavailable),
        ];
        for (status, passes, expected) in rows {
            assert_eq!(exit_of(status, passes), expected, "{status} {passes}");
        }
    }

    #[test]
    fn another_version_is_named_and_the_same_is_not() {
        let said = |server: &'static str| {
            let header = (header::SERVER, http::HeaderValue::from_static(server));
            another_version(&HeaderMap::from_iter([header]))
        };
        assert_eq!((said(USER_AGENT), said("nginx")), (String::new(), String::new()));
        assert!(
            said("cohortd/0.0.9")
                .contains("the daemon is cohortd/0.0.9 and this command is cohortd/")
        );
        assert_eq!(another_version(&HeaderMap::new()), "");
    }
}
