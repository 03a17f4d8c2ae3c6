//! `cohortd send`: signs and posts an event as Segment would, to try out a destination or a route.
//!
//! Exits with 0 for a 2xx, with 64 for any other status below 500 (the request is wrong, or the
//! configuration that it was made from), and with 69 for a 5xx or no answer.

use std::io::{Result, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use hmac::{Hmac, KeyInit, Mac};
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use sha1::Sha1;
use url::Url;

use super::addressee::Addressee;
use super::reaching::{Trust, reach};
use super::{Exit, complain, read_file, to_the_daemon, unreached};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Listen};
use crate::json;
use crate::receive::Credentials;
use crate::receive::envelope::{self, Envelope};

/// Longer than Segment's timeout, to see a slow answer rather than only miss it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to post and where.
// No `Debug`: it holds personal data (P8).
#[derive(Args, Clone)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["file", "user"])))]
pub struct Send {
    /// The destination or route to post to [default: the only destination that is configured]
    destination: Option<String>,
    /// Post to this URL [default: the listener of this configuration]
    #[arg(long)]
    url: Option<Url>,
    /// Post this file: an event, or an array of events; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Make an event for the person with this user id
    #[arg(long, value_name = "ID", requires_all = ["audience", "way"])]
    user: Option<String>,
    #[command(flatten)]
    event: EventFlags,
}

#[derive(Args, Clone)]
#[command(group(clap::ArgGroup::new("way").args(["enter", "exit"])))]
struct EventFlags {
    /// The audience's key
    #[arg(long, value_name = "KEY", requires = "user")]
    audience: Option<String>,
    /// The audience's id [default: aud_ and the key]
    #[arg(long, value_name = "ID", requires = "user")]
    audience_id: Option<String>,
    /// The person enters the audience
    #[arg(long, requires = "user")]
    enter: bool,
    /// The person leaves the audience
    #[arg(long, requires = "user")]
    exit: bool,
    /// The person's email
    #[arg(long, requires = "user")]
    email: Option<String>,
    /// Make a Track event instead of an Identify event
    #[arg(long, requires = "user")]
    track: bool,
}

impl Send {
    /// Posts the event and prints the answer.
    pub async fn send(&self, config: &Config, out: &mut impl Write) -> Result<Exit> {
        let prepared = Addressee::named(config, self.destination.as_deref())
            .and_then(|to| Ok((to.name(), to.segment(config)?, Body::read(&self.text()?)?)));
        let (name, segment, body) = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                complain(&format!("cohortd send: {why}"));
                return Ok(Exit::BadUsage);
            }
        };
        let sent = match self.way(config, name) {
            Ok((client, url)) => {
                let at = format!("{}: ", url.origin().ascii_serialization());
                post(&client, url, &segment.credentials, body).await.map_err(|why| at + &why)
            }
            Err(why) => Err(why),
        };
        match sent {
            Ok((status, answer)) => {
                writeln!(out, "{status}\n{}", answer.trim_end())?;
                Ok(match status.as_u16() {
                    200..300 => Exit::Done,
                    500.. => Exit::Unavailable,
                    _ => Exit::BadUsage,
                })
            }
            Err(why) => {
                complain(&format!(
                    "cohortd send: no answer from {why}; is the daemon running there?"
                ));
                Ok(Exit::Unavailable)
            }
        }
    }

    /// The client and URL to post with: the URL given, whose certificate must be signed by a CA that this
    /// machine trusts, or the listener of this configuration.
    fn way(
        &self,
        config: &Config,
        name: &str,
    ) -> std::result::Result<(reqwest::Client, Url), String> {
        if let Some(url) = &self.url {
            return Ok((to_the_daemon(PATIENCE).build().map_err(unreached)?, url.clone()));
        }
        let Listen { address, tls, .. } = &config.listen;
        let mut reached = reach(*address, tls.as_ref(), Trust::Certificate, PATIENCE)?;
        reached.url.set_path(&format!("segment/{name}"));
        Ok((reached.client, reached.url))
    }

    fn text(&self) -> std::result::Result<String, String> {
        match (&self.file, &self.user) {
            (Some(path), _) => read_file(path),
            (None, Some(user)) => Ok(self.event.event(user).to_string()),
            (None, None) => Err("say what to send: use --file or --user".to_owned()),
        }
    }
}

impl EventFlags {
    /// The event that Segment would send for this change: a
    /// [membership](crate::design::segment::memberships).
    fn event(&self, user: &str) -> Value {
        let key = self.audience.as_deref().unwrap_or_default();
        let id = self.audience_id.clone().unwrap_or_else(|| format!("aud_{key}"));
        let now = jiff::Timestamp::from_microsecond(SystemClock.now().0).unwrap_or_default();
        let mut values = json!({ key: self.enter });
        let mut context = json!({ "personas": {
            "computation_class": "audience", "computation_id": id, "computation_key": key,
        } });
        let mut event = json!({
            "messageId": format!("cohortd-send-{:016x}", rand::random::<u64>()),
            "userId": user,
            "timestamp": format!("{now:.3}"),
        });
        if self.track {
            if let Some(email) = &self.email {
                context["traits"] = json!({ "email": email });
            }
            values["audience_key"] = json!(key);
            event["type"] = json!("track");
            event["event"] = json!(if self.enter { "Audience Entered" } else { "Audience Exited" });
            event["properties"] = values;
        } else {
            if let Some(email) = &self.email {
                values["email"] = json!(email);
            }
            event["type"] = json!("identify");
            event["traits"] = values;
        }
        event["context"] = context;
        event
    }
}

/// The body to post, and the part of it that Segment would sign.
struct Body {
    text: Vec<u8>,
    signed: Vec<u8>,
}

impl Body {
    /// For an array, the signed part is the text of the first element, byte for byte as it is posted.
    fn read(text: &str) -> std::result::Result<Self, String> {
        json::from_str::<IgnoredAny>(text).map_err(|error| format!("not JSON: {error}"))?;
        match envelope::split(text.as_bytes(), usize::MAX) {
            Ok(Envelope::Single(event)) => Ok(Self { text: event.into(), signed: event.into() }),
            Ok(Envelope::Array(events)) => {
                let text = [b"[", &*events.join(&b','), b"]"].concat();
                let event = |first| envelope::wrapped_event(first).unwrap_or(first).to_vec();
                let signed = events.first().copied().map_or_else(|| text.clone(), event);
                Ok(Self { text, signed })
            }
            Err(_) => Err("not a JSON object or array".to_owned()),
        }
    }
}

/// The HMAC-SHA1 in lower-case hex, as Segment sends it in `X-Signature`.
fn signature(secret: &str, signed: &[u8]) -> String {
    let mut mac =
        Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(signed);
    hex::encode(mac.finalize().into_bytes())
}

async fn post(
    client: &reqwest::Client,
    url: Url,
    credentials: &Credentials,
    body: Body,
) -> std::result::Result<(http::StatusCode, String), String> {
    let mut request = client.post(url).header(http::header::CONTENT_TYPE, "application/json");
    if let Some(secret) = credentials.shared_secrets.first() {
        request = request.header("X-Signature", signature(secret.expose(), &body.signed));
    }
    if let Some(token) = credentials.bearer_tokens.first() {
        request = request.bearer_auth(token.expose());
    }
    let answer = request.body(body.text).send().await.map_err(unreached)?;
    let status = answer.status();
    Ok((status, answer.text().await.map_err(unreached)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_is_the_text_of_the_first_event_as_it_is_posted() {
        let cases = [
            (" {\"a\": 1}\n", "{\"a\": 1}", "{\"a\": 1}"),
            ("[ {\"a\": 1} , {} ]", "[{\"a\": 1},{}]", "{\"a\": 1}"),
            ("[{\"json\": {\"a\":1}}]", "[{\"json\": {\"a\":1}}]", "{\"a\":1}"),
            ("[{\"json\":1}]", "[{\"json\":1}]", "{\"json\":1}"),
            ("[{\"json\":1,\"b\":2}]", "[{\"json\":1,\"b\":2}]", "{\"json\":1,\"b\":2}"),
            ("[\"\\ud800\"]", "[\"\\ud800\"]", "\"\\ud800\""),
            ("[]", "[]", "[]"),
        ];
        for (text, posted, signed) in cases {
            let body = Body::read(text).expect(text);
            let (posted, signed) = (posted.as_bytes(), signed.as_bytes());
            assert_eq!((&*body.text, &*body.signed), (posted, signed), "{text}");
        }
        for text in ["", "{", "[1", "{} {}"] {
            assert!(Body::read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_signature_is_lower_case_hex_hmac_sha1() {
        // RFC 2202, test case 2.
        let expected = "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79";
        assert_eq!(signature("Jefe", b"what do ya want for nothing?"), expected);
    }

    #[test]
    fn the_events_are_shaped_as_segment_shapes_them() {
        let flags = |enter, track| EventFlags {
            audience: Some("vip".to_owned()),
            audience_id: None,
            enter,
            exit: !enter,
            email: Some("a@b.c".to_owned()),
            track,
        };
        let identify = flags(true, false).event("ada");
        assert_eq!(identify["type"], "identify");
        assert_eq!(identify["userId"], "ada");
        assert_eq!(identify["traits"], json!({ "vip": true, "email": "a@b.c" }));
        let personas = json!({
            "computation_class": "audience", "computation_id": "aud_vip", "computation_key": "vip",
        });
        assert_eq!(identify["context"], json!({ "personas": personas }));
        let track = flags(false, true).event("ada");
        assert_eq!((&track["type"], &track["event"]), (&json!("track"), &json!("Audience Exited")));
        assert_eq!(track["properties"], json!({ "vip": false, "audience_key": "vip" }));
        assert_eq!(track["context"]["traits"], json!({ "email": "a@b.c" }));
        let time = track["timestamp"].as_str().expect("it has a time");
        assert!(time.len() == "2025-01-01T00:00:00.000Z".len() && time.ends_with('Z'), "{time}");
    }
}
