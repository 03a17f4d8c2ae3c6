//! Where Segment is to post to, and what a request must show there: the first thing that whoever sets cohortd
//! up wants to know.

use serde::{Deserialize, Serialize};

use crate::config::{Config, Credential, SegmentSection};
use crate::membership::DestinationName;

/// A path that leads to a destination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The path of the URL that is put into Segment, behind the public address of this daemon.
    pub path: String,
    /// What a request shows there, in words; empty: nothing is demanded.
    pub credentials: Vec<String>,
    /// Whether all of them are demanded; otherwise one suffices.
    pub demands_all: bool,
}

/// Those of a destination: its own path, those of the routes that lead to it, and the Tracking API's if it has
/// write keys.
#[must_use]
pub fn of(config: &Config, name: &DestinationName) -> Vec<Entry> {
    let own = config.destinations.iter().filter(|of| of.name == *name);
    let own = own.filter_map(|of| Some((of.name.as_str(), of.segment.as_ref()?)));
    let routes = config.routes.iter().filter(|of| of.destinations.contains(name));
    let all = own.chain(routes.map(|of| (of.name.as_str(), &of.segment)));
    all.flat_map(|(name, segment)| entries(name, segment)).collect()
}

fn entries(name: &str, segment: &SegmentSection) -> Vec<Entry> {
    let demands_all = !segment.require.is_empty();
    let configured = [
        (Credential::Signature, !segment.shared_secrets.is_empty()),
        (Credential::Bearer, !segment.bearer_tokens.is_empty()),
        (Credential::WriteKey, !segment.write_keys.is_empty()),
    ];
    let is_asked = |credential, is_configured: bool| {
        if demands_all { segment.require.contains(credential) } else { is_configured }
    };
    let asked = configured.iter().filter(|(credential, is)| is_asked(credential, *is));
    let credentials = asked.map(|(credential, _)| words(*credential).to_owned()).collect();
    let webhook = Entry { path: format!("/segment/{name}"), credentials, demands_all };
    let tracking = (!segment.write_keys.is_empty()).then(|| Entry {
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
