//! What is wrong with a refused request, and what would fix it: for the log, the status and the dashboard,
//! which only operators see. The sender is told less (`answer`).

use serde::{Deserialize, Serialize};

use super::Place;
use super::shown::{Doubt, Kind};
use crate::receive::answer::Refusal;
use crate::receive::authentication::Credential;
use crate::receive::proxy_protocol::Malformed;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cause {
    pub refusal: Refusal,
    /// If it was not authenticated.
    pub doubt: Option<Doubt>,
    /// If a header of the PROXY protocol was invalid.
    #[serde(default)]
    pub malformed: Option<Malformed>,
}

/// The setting for a credential, and what the credential is called in Segment.
fn setting(credential: Credential) -> (&'static str, &'static str) {
    match credential {
        Credential::Signature => ("shared_secrets", "the shared secret of the webhook"),
        Credential::Bearer => ("bearer_tokens", "the header Authorization: Bearer <token>"),
        Credential::WriteKey => ("write_keys", "the write key of the source"),
    }
}

fn of_kind(kind: Kind) -> Credential {
    match kind {
        Kind::None | Kind::Signature => Credential::Signature,
        Kind::Bearer | Kind::Other => Credential::Bearer,
        Kind::Basic => Credential::WriteKey,
    }
}

impl Cause {
    /// Two sentences: the reason, and the remedy.
    pub fn words(self, place: &Place) -> (String, String) {
        let section = &place.section;
        if let Some(doubt) = self.doubt {
            return doubted(doubt, section);
        }
        let limit = "Segment does not retry it.";
        match self.refusal {
            Refusal::NotFound if place.path.starts_with("/v1/") => (
                "Calls of the Tracking API are not accepted: no write key is configured.".into(),
                format!("Set {section}.segment.write_keys to the write key of the source."),
            ),
            Refusal::NotFound | Refusal::UnknownDestination => astray(place),
            Refusal::MethodNotAllowed => (
                "The request used a method that this path does not accept.".into(),
                "Let Segment send by POST, PUT or PATCH.".into(),
            ),
            Refusal::SourceNotAllowed => (
                "The request came from an address that is not allowed.".into(),
                format!(
                    "Add Segment's networks to {section}.segment.allowed_sources; behind a proxy, check \
                     listen.trusted_proxies."
                ),
            ),
            Refusal::BatchNotAllowed => (
                "Segment sends batches, and this path accepts one event per request.".into(),
                format!(
                    "Switch batching off in Segment, or set {section}.segment.allow_batches = true."
                ),
            ),
            Refusal::TooLarge => (
                format!("The body is larger than the limit. {limit}"),
                "Let Segment send smaller batches, or raise listen.body_limit_mib.".into(),
            ),
            Refusal::TooManyEvents => (
                format!("The body holds more events than one request may have. {limit}"),
                "Let the sender send smaller batches.".into(),
            ),
            Refusal::BodyTimeout => (
                "The body did not arrive in time.".into(),
                "Check the network and the proxies in front, or raise listen.body_timeout_ms.".into(),
            ),
            Refusal::BodyBroken => (
                "The body was cut off, or is framed badly.".into(),
                "Check the proxies in front.".into(),
            ),
            Refusal::NotPacked => (
                "The body is not compressed as its Content-Encoding says.".into(),
                "Let the sender, or the proxy in front, name the encoding it uses: gzip, deflate (the zlib format) or none."
                    .into(),
            ),
            Refusal::PackedShort => (
                "The body arrived complete, but its compressed stream ends early.".into(),
                "Let the sender finish the stream before sending it.".into(),
            ),
            Refusal::PackedBroken => (
                "The compressed body is damaged: its checksum or its content is wrong, or there \
                 is data after its end."
                    .into(),
                "Check what compresses it, and the proxies in front.".into(),
            ),
            Refusal::BadJson => (
                "The body is not a JSON object or array.".into(),
                "Set the content type of the webhook in Segment to JSON.".into(),
            ),
            Refusal::UnknownEncoding => (
                "The body has an unknown Content-Encoding.".into(),
                "Let the sender, or the proxy in front, use gzip, deflate or none.".into(),
            ),
            Refusal::BadAudience => (
                "A create or get call of Webhook Audiences had no audience name or id.".into(),
                "Check the audience settings of the destination in Segment.".into(),
            ),
            Refusal::ProxyHeader => (
                "The load balancer sends a header of the PROXY protocol, which is not expected.".into(),
                "Set listen.proxy_protocol = true, or switch it off in the load balancer.".into(),
            ),
            Refusal::NoProxyHeader => (
                "The connection did not begin with a header of the PROXY protocol, which is expected.".into(),
                "Switch it on in the load balancer, or set listen.proxy_protocol = false.".into(),
            ),
            Refusal::SecondProxyHeader => (
                "The connection began with more than one header of the PROXY protocol.".into(),
                "Let only the last load balancer send one; if only it does, a sender behind it adds its own.".into(),
            ),
            Refusal::BadProxyHeader => (
                format!(
                    "The connection began with a malformed header of the PROXY protocol: {}.",
                    self.malformed.map_or("it is not a PROXY header", Malformed::what)
                ),
                "Let the load balancer send version 1 or 2 as specified, or switch the protocol \
                 off there and set listen.proxy_protocol = false."
                    .into(),
            ),
            // not the sender's fault, or not from a sender of events: never remembered
            Refusal::OriginNotListed
            | Refusal::Unauthenticated
            | Refusal::Disabled
            | Refusal::TooMany
            | Refusal::Busy
            | Refusal::Unavailable => (String::new(), String::new()),
        }
    }
}

fn astray(place: &Place) -> (String, String) {
    let why = "No destination or route has this path.";
    let remedy = match &place.nearest {
        Some(nearest) => format!("The nearest is /segment/{nearest}: correct the URL in Segment."),
        None => {
            "Correct the URL in Segment: it ends with /segment/ and the name of a destination or \
                 route."
                .to_owned()
        }
    };
    (why.to_owned(), remedy)
}

fn doubted(doubt: Doubt, section: &str) -> (String, String) {
    let copy = |credential| {
        let (key, there) = setting(credential);
        format!("Compare {there} in Segment with {section}.segment.{key}.")
    };
    match doubt {
        Doubt::Nothing => (
            "The request carries no credential.".to_owned(),
            format!(
                "Set in Segment what {section}.segment asks for: a shared secret \
                 (shared_secrets), an Authorization header (bearer_tokens) or a write key \
                 (write_keys)."
            ),
        ),
        Doubt::Lacks(credential) => {
            let (key, there) = setting(credential);
            let what = match credential {
                Credential::Signature => "an X-Signature",
                Credential::Bearer => "a bearer token",
                Credential::WriteKey => "a write key",
            };
            (
                format!("The request lacks {what}, which is required as well."),
                format!(
                    "Set {there} in Segment to one of {section}.segment.{key}, or change \
                     {section}.segment.require."
                ),
            )
        }
        Doubt::Signature => (
            "The X-Signature matches none of the shared secrets.".to_owned(),
            copy(Credential::Signature),
        ),
        Doubt::Rewritten => (
            "The X-Signature matches the event as Segment wrote it, but not the bytes that \
             arrived: something in between has rewritten the body."
                .to_owned(),
            "Let the proxy, gateway or function in front pass the body on byte for byte.".to_owned(),
        ),
        Doubt::Malformed => (
            "The X-Signature is not 40 lower-case hexadecimal digits: Segment did not make it."
                .to_owned(),
            "Let Segment sign (set the shared secret of the webhook) instead of setting the header by hand."
                .to_owned(),
        ),
        Doubt::Wrong(kind) => {
            let what = match kind {
                Kind::Basic => "The write key is not one of the configured ones.",
                _ => "The bearer token is not one of the configured ones.",
            };
            (what.to_owned(), copy(of_kind(kind)))
        }
        Doubt::Unexpected(Kind::Other) => (
            "The Authorization header has an unknown scheme.".to_owned(),
            format!(
                "Put `Bearer ` before the token in Segment, and add the token to \
                 {section}.segment.bearer_tokens."
            ),
        ),
        Doubt::Unexpected(kind) => {
            let (key, _) = setting(of_kind(kind));
            let what = match kind {
                Kind::Basic => "HTTP Basic",
                Kind::Bearer => "a bearer token",
                _ => "an X-Signature",
            };
            (
                format!("The request carries {what}, and none is configured here."),
                format!(
                    "Set {section}.segment.{key}, or let Segment send the credential that is configured."
                ),
            )
        }
    }
}
