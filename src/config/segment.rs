//! `[destinations.<name>.segment]`: who may post to a destination.

use std::net::IpAddr;

use ipnet::IpNet;
use url::Url;

use super::secrets;
use super::section::{Section, choose};
use crate::receive::{Credential, Credentials};

/// Who may post to a destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentSection {
    /// What proves that a request comes from Segment.
    pub credentials: Credentials,
    /// Names of fields that a Webhook Audience appends to each event after signing it.
    pub extra_fields: Vec<String>,
    /// Networks that may post; if empty, all may.
    pub allowed_sources: Vec<IpNet>,
    /// Origins of web pages that may read answers of the Tracking API, as browsers write them; `*` allows
    /// all. If empty, no page may.
    pub cors_origins: Vec<String>,
    /// Whether one request may carry several events.
    pub allow_batches: bool,
    /// Whether the Tracking API's times are also corrected if the sender's clock is behind.
    pub correct_clocks_behind: bool,
    /// Most requests accepted per second; `None` is unlimited.
    pub max_requests_per_s: Option<u64>,
}

const CREDENTIALS: [(&str, Credential); 3] = [
    ("signature", Credential::Signature),
    ("bearer", Credential::Bearer),
    ("write_key", Credential::WriteKey),
];

impl SegmentSection {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let shared_secrets = secrets::many(&mut section, ("shared_secrets", "shared_secrets_file"));
        let bearer_tokens = secrets::many(&mut section, ("bearer_tokens", "bearer_tokens_file"));
        let write_keys = secrets::many(&mut section, ("write_keys", "write_keys_file"));
        let read_all = shared_secrets.is_some() && bearer_tokens.is_some() && write_keys.is_some();
        let segment = Self {
            credentials: Credentials {
                shared_secrets: shared_secrets.unwrap_or_default(),
                bearer_tokens: bearer_tokens.unwrap_or_default(),
                write_keys: write_keys.unwrap_or_default(),
                require: read_require(&mut section),
                allow_unauthenticated: section.flag("allow_unauthenticated").unwrap_or(false),
            },
            extra_fields: section.list("extra_fields").unwrap_or_default(),
            allowed_sources: read_networks(&mut section),
            cors_origins: read_origins(&mut section),
            allow_batches: section.flag("allow_batches").unwrap_or(true),
            correct_clocks_behind: section.flag("correct_clocks_behind").unwrap_or(false),
            max_requests_per_s: section.whole("max_requests_per_s", 1..=1_000_000),
        };
        if read_all && section.is_clean() {
            segment.check(&section);
        }
        section.finish();
        segment
    }

    fn check(&self, section: &Section<'_>) {
        let credentials = &self.credentials;
        if credentials.allow_unauthenticated && credentials.require.is_empty() {
            let text = "anybody who can reach this path can change segments";
            section.warn("allow_unauthenticated", text);
        } else if credentials.allow_unauthenticated {
            section.warn("allow_unauthenticated", "has no effect: require demands credentials");
        } else if credentials.shared_secrets.is_empty()
            && credentials.bearer_tokens.is_empty()
            && credentials.write_keys.is_empty()
        {
            let why = ", or a bearer token in bearer_tokens, or a write key in write_keys: every \
                       destination requires authentication unless allow_unauthenticated = true";
            section.missing("shared_secrets", Some("shared_secrets_file"), why);
            return;
        }
        if self.allow_batches && self.is_a_signature_enough() {
            let why = "a signature is enough, and covers only the first event of a batch: whoever has \
                       seen one can append others to it; set bearer_tokens and require = \
                       [\"signature\", \"bearer\"], or allow_batches = false";
            section.warn("require", why);
        }
        if credentials.write_keys.is_empty() && !self.cors_origins.is_empty() {
            let text = "has no effect: without write_keys the Tracking API is not served";
            section.warn("cors_origins", text);
        }
        let deciding = |field: &&String| DECIDING.contains(&field.as_str());
        for field in self.extra_fields.iter().filter(deciding) {
            let warning = format!(
                "names {field}, which decides how an event is handled: as an extra field it is \
                 not signed, so whoever gets hold of a signed event can change it"
            );
            section.warn("extra_fields", &warning);
        }
        for credential in &credentials.require {
            let (word, key, configured) = match credential {
                Credential::Signature => {
                    ("signature", "shared_secrets", &credentials.shared_secrets)
                }
                Credential::Bearer => ("bearer", "bearer_tokens", &credentials.bearer_tokens),
                Credential::WriteKey => ("write_key", "write_keys", &credentials.write_keys),
            };
            if configured.is_empty() {
                section.fault("require", None, format!("names {word:?}, but {key} is not set"));
            }
        }
        if [Credential::Bearer, Credential::WriteKey]
            .iter()
            .all(|one| credentials.require.contains(one))
        {
            let problem = "names both \"bearer\" and \"write_key\", which no request can carry \
                           together: both use the Authorization header";
            section.fault("require", None, problem);
        }
    }

    /// Whether a signature is both necessary and sufficient for a webhook.
    fn is_a_signature_enough(&self) -> bool {
        let credentials = &self.credentials;
        let may_be_alone = credentials.require.iter().all(|one| *one == Credential::Signature);
        let is_open = credentials.allow_unauthenticated && credentials.require.is_empty();
        !credentials.shared_secrets.is_empty() && may_be_alone && !is_open
    }
}

fn read_networks(section: &mut Section<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in section.list("allowed_sources").unwrap_or_default() {
        let text = text.trim();
        let address = || text.parse::<IpAddr>().map(IpNet::from).ok();
        if let Some(network) = text.parse().ok().or_else(address) {
            networks.push(network);
        } else {
            let problem = "must be networks or addresses, as in 10.0.0.0/8 or 2001:db8::1";
            section.fault("allowed_sources", Some(text.to_owned()), problem);
        }
    }
    networks
}

fn read_origins(section: &mut Section<'_>) -> Vec<String> {
    let mut origins = Vec::new();
    for text in section.list("cors_origins").unwrap_or_default() {
        let text = text.trim();
        let problem = match origin(text) {
            Some(origin) if origin == "*" || !origin.contains('*') => {
                origins.push(origin);
                continue;
            }
            Some(_) => {
                "is a pattern, which matches no origin: list each origin, as in \
                 https://www.example.com, or * alone"
            }
            None => "must be origins of web pages, as in https://www.example.com, or *",
        };
        section.fault("cors_origins", Some(text.to_owned()), problem);
    }
    origins
}

/// Normalises an origin to the form that browsers send: without a path or the scheme's default port. Pages
/// of apps and extensions have schemes of their own, as in `capacitor://localhost`.
fn origin(text: &str) -> Option<String> {
    if text == "*" {
        return Some(text.to_owned());
    }
    let url = Url::parse(text).ok()?;
    let is_bare =
        matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    let host = url.host_str().filter(|host| !host.is_empty() && is_bare && is_anonymous)?;
    let origin = url.origin();
    if origin.is_tuple() {
        return Some(origin.ascii_serialization());
    }
    let port = url.port().map_or(String::new(), |port| format!(":{port}"));
    Some(format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase()))
}

/// Fields that decide how an event is handled.
const DECIDING: [&str; 13] = [
    "anonymousId",
    "context",
    "event",
    "groupId",
    "messageId",
    "originalTimestamp",
    "properties",
    "receivedAt",
    "sentAt",
    "timestamp",
    "traits",
    "type",
    "userId",
];

fn read_require(section: &mut Section<'_>) -> Vec<Credential> {
    let mut require = Vec::new();
    for word in section.list("require").unwrap_or_default() {
        match choose(word.trim(), &CREDENTIALS) {
            Ok(credential) if require.contains(&credential) => {}
            Ok(credential) => require.push(credential),
            Err(problem) => section.fault("require", None, format!("each item {problem}")),
        }
    }
    require
}
