//! `cohortd check`: what was understood of the configuration, and whether LaunchDarkly knows the
//! credentials. Prints no secret, only how many there are.

use std::io::{Result, Write};
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderValue};
use url::Url;

use super::{Exit, unreached};
use crate::config::{
    Config, Credential, Destination, LaunchDarklySection, SegmentSection, context_key_word,
};

/// For each of the two questions.
const PATIENCE: Duration = Duration::from_secs(10);

/// Prints what was understood; with `online` also asks LaunchDarkly.
pub async fn check(config: &Config, online: bool, out: &mut impl Write) -> Result<Exit> {
    let mut failures = 0;
    for destination in &config.destinations {
        describe(config, destination, out)?;
        if online {
            let launchdarkly = &destination.launchdarkly;
            for (what, finding) in probe(launchdarkly).await {
                writeln!(out, "  {what:<14} {}", finding.text)?;
                failures += usize::from(!finding.good);
            }
        }
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

fn describe(config: &Config, destination: &Destination, out: &mut impl Write) -> Result<()> {
    let launchdarkly = &destination.launchdarkly;
    let (mapping, delivery) = (&destination.mapping, &destination.delivery);
    let disabled = if destination.enabled { "" } else { " (disabled)" };
    writeln!(out, "destination {}{disabled}", destination.name)?;
    let listen = config.listen.address;
    writeln!(out, "  {:<14} /segment/{} on {listen}", "receives at", destination.name)?;
    writeln!(out, "  {:<14} {}", "authenticates", authentication(&destination.segment))?;
    write!(out, "  {:<14} {}", "delivers to", launchdarkly.base_url)?;
    write!(out, ", client-side ID {}", launchdarkly.shown_client_side_id())?;
    let names = [("project", &launchdarkly.project), ("environment", &launchdarkly.environment)];
    for (what, name) in names {
        if let Some(name) = name {
            write!(out, ", {what} {name}")?;
        }
    }
    writeln!(out)?;
    let kind = mapping.context_kind.as_str();
    let key = context_key_word(mapping.context_key);
    writeln!(out, "  {:<14} context kind {kind}, context key {key}", "maps to")?;
    let (most, linger) = (delivery.max_batch, delivery.linger.as_millis());
    let concurrency = delivery.concurrency;
    writeln!(
        out,
        "  {:<14} up to {most} members, {linger} ms after the first, {concurrency} at once",
        "sends"
    )
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
    };
    let required: Vec<&str> = segment.require.iter().map(words).collect();
    let demand = if segment.allow_unauthenticated {
        "nobody has to show any".to_owned()
    } else if required.is_empty() {
        "any one suffices".to_owned()
    } else {
        format!("{} required", required.join(" and "))
    };
    let counted = if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") };
    format!("{counted}; {demand}")
}

/// What one question to LaunchDarkly found.
#[derive(Debug)]
struct Finding {
    good: bool,
    text: String,
}

impl Finding {
    fn good(text: &str) -> Self {
        Self { good: true, text: text.to_owned() }
    }

    fn bad(text: impl Into<String>) -> Self {
        Self { good: false, text: text.into() }
    }
}

/// Both credential checks of wire.md, section 3.
async fn probe(launchdarkly: &LaunchDarklySection) -> Vec<(&'static str, Finding)> {
    match client(launchdarkly) {
        Ok(client) => vec![
            ("client-side ID", probe_client_side_id(&client, launchdarkly).await),
            ("service token", probe_service_token(&client, launchdarkly).await),
        ],
        Err(why) => vec![("LaunchDarkly", Finding::bad(format!("cannot be asked: {why}")))],
    }
}

/// Goes where the configuration says and nowhere else: no redirects, no proxy from the environment.
fn client(launchdarkly: &LaunchDarklySection) -> std::result::Result<reqwest::Client, String> {
    let mut client = reqwest::Client::builder()
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("cohortd/", env!("CARGO_PKG_VERSION")))
        .no_proxy();
    if let Some(proxy) = &launchdarkly.proxy {
        client = client.proxy(reqwest::Proxy::all(proxy.clone()).map_err(unreached)?);
    }
    if let Some(path) = &launchdarkly.ca_file {
        let pem = std::fs::read(path).map_err(|error| format!("ca_file: {error}"))?;
        client =
            client.tls_certs_merge(reqwest::Certificate::from_pem_bundle(&pem).map_err(unreached)?);
    }
    client.build().map_err(unreached)
}

async fn probe_client_side_id(client: &reqwest::Client, to: &LaunchDarklySection) -> Finding {
    let url = below(&to.client_sdk_url, &["sdk", "goals", &to.client_side_id]);
    match client.head(url).send().await.map(|answer| answer.status()) {
        Ok(StatusCode::OK) => Finding::good("known"),
        Ok(StatusCode::NOT_FOUND) => Finding::bad(
            "unknown to LaunchDarkly (404): copy the client-side ID of the environment into \
             client_side_id",
        ),
        Ok(status) => Finding::bad(unexpected(status, &to.client_sdk_url)),
        Err(error) => Finding::bad(no_answer(error, &to.client_sdk_url)),
    }
}

async fn probe_service_token(client: &reqwest::Client, to: &LaunchDarklySection) -> Finding {
    let Ok(mut token) = HeaderValue::from_str(to.service_token.expose()) else {
        return Finding::bad("cannot stand in a header: it is not plain ASCII");
    };
    token.set_sensitive(true);
    let url = below(&to.base_url, &["api", "v2", "versions"]);
    let answer = client.get(url).header(AUTHORIZATION, token).send().await;
    match answer.map(|answer| answer.status()) {
        Ok(StatusCode::OK) => Finding::good(
            "accepted; whether it has the rights createSegment and updateIncluded only the first \
             delivery shows: this question is answered alike without them",
        ),
        Ok(status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)) => Finding::bad(format!(
            "refused ({status}): make an API access token with the rights createSegment and \
             updateIncluded and set it as service_token",
            status = status.as_u16()
        )),
        Ok(status) => Finding::bad(unexpected(status, &to.base_url)),
        Err(error) => Finding::bad(no_answer(error, &to.base_url)),
    }
}

fn unexpected(status: StatusCode, asked: &Url) -> String {
    let status = status.as_u16();
    format!("unclear: {asked} answered {status}; try again, or check that it is LaunchDarkly")
}

fn no_answer(error: reqwest::Error, asked: &Url) -> String {
    let why = unreached(error);
    format!("unclear: {asked} cannot be reached ({why}); check the network, proxy and ca_file")
}

/// The URL of a route below a base that may have a path of its own.
fn below(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        // An http or https URL always has segments.
        path.pop_if_empty().extend(segments);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_appended_to_the_base_and_escaped() {
        let cases = [
            ("https://a.b", "id", "https://a.b/sdk/id"),
            ("https://a.b/ld", "id", "https://a.b/ld/sdk/id"),
            ("https://a.b/ld", "../x?y", "https://a.b/ld/sdk/..%2Fx%3Fy"),
        ];
        for (base, id, expected) in cases {
            let base = Url::parse(base).expect("the table has URLs");
            assert_eq!(below(&base, &["sdk", id]).as_str(), expected);
        }
    }
}
