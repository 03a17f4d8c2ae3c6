//! `cohortd check`: what was understood of the configuration, and whether LaunchDarkly knows the
//! credentials. Prints no secret, only how many there are.

use std::io::{Result, Write};
use std::net::SocketAddr;
use std::time::Duration;

use super::{Exit, unreached};
use crate::certificate;
use crate::config::{Config, Credential, Destination, SegmentSection};
use crate::launchdarkly::{Credentials, Verdict};
use crate::membership::DestinationName;
use crate::operate::logging::chain;
use crate::receive::tls::TlsFiles;

/// For each of the two questions.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints what was understood; with `online` also asks LaunchDarkly.
pub async fn check(config: &Config, online: bool, out: &mut impl Write) -> Result<Exit> {
    let mut failures = 0;
    let Config { listen, admin, .. } = config;
    listens("public", listen.address, listen.tls.as_ref(), out)?;
    listens("admin", admin.address, admin.tls.as_ref(), out)?;
    for destination in &config.destinations {
        describe(config, destination, out)?;
        if online {
            for (what, finding) in probe(destination).await {
                writeln!(out, "  {what:<14} {}", finding.text)?;
                failures += usize::from(!finding.good);
            }
        }
    }
    for route in &config.routes {
        let names: Vec<&str> = route.destinations.iter().map(DestinationName::as_str).collect();
        writeln!(out, "route {}", route.name)?;
        describe_path(config, &route.name, &route.segment, out)?;
        writeln!(out, "  {:<14} {}", "feeds", names.join(", "))?;
    }
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    writeln!(out, "configuration is good")?;
    if failures == 0 {
        return Ok(Exit::Done);
    }
    writeln!(out, "{failures} of the answers from LaunchDarkly need you, see above")?;
    Ok(Exit::Unavailable)
}

fn listens(
    name: &str,
    address: SocketAddr,
    tls: Option<&TlsFiles>,
    out: &mut impl Write,
) -> Result<()> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let demands = tls.is_some_and(|files| files.client_ca_file.is_some());
    let demands = if demands { ", client certificates required" } else { "" };
    writeln!(out, "{name} listener: {scheme}://{address}{demands}")
}

fn describe(config: &Config, destination: &Destination, out: &mut impl Write) -> Result<()> {
    let launchdarkly = &destination.launchdarkly;
    let delivery = &destination.delivery;
    let disabled = if destination.enabled { "" } else { " (disabled)" };
    writeln!(out, "destination {}{disabled}", destination.name)?;
    match &destination.segment {
        Some(segment) => describe_path(config, destination.name.as_str(), segment, out)?,
        None => writeln!(out, "  {:<14} nothing but what a route brings", "receives")?,
    }
    write!(out, "  {:<14} {}", "delivers to", launchdarkly.base_url)?;
    write!(out, ", client-side ID {}", launchdarkly.shown_client_side_id())?;
    let names = [("project", &launchdarkly.project), ("environment", &launchdarkly.environment)];
    for (what, name) in names {
        if let Some(name) = name {
            write!(out, ", {what} {name}")?;
        }
    }
    writeln!(out)?;
    for mapping in destination.mappings.all() {
        writeln!(out, "  {:<14} {mapping}", "maps to")?;
    }
    let (most, linger) = (delivery.max_batch, delivery.linger.as_millis());
    let concurrency = delivery.concurrency;
    writeln!(
        out,
        "  {:<14} up to {most} members, {linger} ms after the first, {concurrency} at once",
        "sends"
    )
}

fn describe_path(
    config: &Config,
    name: &str,
    segment: &SegmentSection,
    out: &mut impl Write,
) -> Result<()> {
    let listen = config.listen.address;
    writeln!(out, "  {:<14} /segment/{name} on {listen}", "receives at")?;
    writeln!(out, "  {:<14} {}", "authenticates", authentication(segment))
}

fn authentication(segment: &SegmentSection) -> String {
    let counted = [
        (segment.shared_secrets.len(), "shared secret"),
        (segment.bearer_tokens.len(), "bearer token"),
        (segment.write_keys.len(), "write key"),
    ];
    let counted: Vec<String> = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}{}", if *count == 1 { "" } else { "s" }))
        .collect();
    let words = |credential: &Credential| match credential {
        Credential::Signature => "a signature",
        Credential::Bearer => "a bearer token",
        Credential::WriteKey => "a write key",
    };
    let required: Vec<&str> = segment.require.iter().map(words).collect();
    let demand = match (&required[..], segment.allow_unauthenticated) {
        ([], true) => "nobody has to show any".to_owned(),
        ([], false) => "any one suffices".to_owned(),
        _ => format!("{} required", required.join(" and ")),
    };
    let counted = if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") };
    format!("{counted}; {demand}")
}

/// What one question to LaunchDarkly found.
struct Finding {
    good: bool,
    text: String,
}

async fn probe(destination: &Destination) -> Vec<(&'static str, Finding)> {
    let launchdarkly = &destination.launchdarkly;
    let endpoint = launchdarkly.endpoint(destination.delivery.request_timeout, 1);
    let credentials = match Credentials::new(&endpoint, &launchdarkly.client_sdk_url, PATIENCE) {
        Ok(credentials) => credentials,
        Err(why) => {
            let text = format!("cannot be asked: {}", chain(&why));
            return vec![("LaunchDarkly", Finding { good: false, text })];
        }
    };
    let client_side_id = finding(
        credentials.client_side_id().await,
        "known",
        "copy the client-side ID of the environment into client_side_id",
    );
    let service_token = finding(
        credentials.service_token().await,
        "accepted; whether it has the rights createSegment and updateIncluded only the first \
         delivery shows: this question is answered alike without them",
        "make an API access token with the rights createSegment and updateIncluded and set it as \
         service_token",
    );
    vec![("client-side ID", client_side_id), ("service token", service_token)]
}

fn finding(verdict: Verdict, known: &str, remedy: &str) -> Finding {
    let text = match verdict {
        Verdict::Known => return Finding { good: true, text: known.to_owned() },
        Verdict::Refused(status) => {
            format!("refused by LaunchDarkly ({}): {remedy}", status.as_u16())
        }
        Verdict::Unclear { asked, status } => format!(
            "unclear: {asked} answered {}; try again, or check that it is LaunchDarkly",
            status.as_u16()
        ),
        Verdict::Unreached { asked, source } => format!(
            "unclear: {asked} cannot be reached ({}); check the network, proxy and ca_file",
            certificate::words(&source, "launchdarkly.ca_file")
                .unwrap_or_else(|| unreached(source))
        ),
    };
    Finding { good: false, text }
}
