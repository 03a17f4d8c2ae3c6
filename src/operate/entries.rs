//! The paths that Segment posts to and the credentials that they require: the first thing to know when
//! setting cohortd up.

use serde::{Deserialize, Serialize};

use crate::config::{Config, SegmentSection};
use crate::membership::DestinationName;
use crate::receive::Credential;

/// A path that leads to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path of the URL to enter in Segment, below the public address of this daemon.
    pub path: String,
    /// The credentials that a request must show, in words; empty if none are required.
    pub credentials: Vec<String>,
    /// Whether all of them are required; otherwise one suffices.
    pub demands_all: bool,
}

/// The entries of a destination: its own path, the paths of routes that lead to it, and the Tracking
/// API's if it has write keys.
#[must_use]
pub fn of(config: &Config, name: &DestinationName) -> Vec<Entry> {
    let own = config.destinations.iter().filter(|of| of.name == *name);
    let own = own.filter_map(|of| Some((of.name.as_str(), of.segment.as_ref()?)));
    let routes = config.routes.iter().filter(|of| of.destinations.contains(name));
    let all = own.chain(routes.map(|of| (of.name.as_str(), &of.segment)));
    all.flat_map(|(name, segment)| entries(name, segment)).collect()
}

fn entries(name: &str, segment: &SegmentSection) -> Vec<Entry> {
    let of = &segment.credentials;
    let demands_all = !of.require.is_empty();
    let configured = [
        (Credential::Signature, !of.shared_secrets.is_empty()),
        (Credential::Bearer, !of.bearer_tokens.is_empty()),
        (Credential::WriteKey, !of.write_keys.is_empty()),
    ];
    let is_asked = |credential, is_configured: bool| {
        if demands_all { of.require.contains(credential) } else { is_configured }
    };
    let asked = configured.iter().filter(|(credential, is)| is_asked(credential, *is));
    let credentials = asked.map(|(credential, _)| words(*credential).to_owned()).collect();
    let webhook = Entry { path: format!("/segment/{name}"), credentials, demands_all };
    let tracking = (!of.write_keys.is_empty()).then(|| Entry {
        path: "/v1/".to_owned(),
        credentials: vec![words(Credential::WriteKey).to_owned()],
        demands_all: true,
    });
    [webhook].into_iter().chain(tracking).collect()
}

fn words(credential: Credential) -> &'static str {
    match credential {
        Credential::Signature => "X-Signature with one of segment.shared_secrets",
        Credential::Bearer => "Authorization: Bearer with one of segment.bearer_tokens",
        Credential::WriteKey => {
            "Authorization: Basic with one of segment.write_keys as the user name"
        }
    }
}
