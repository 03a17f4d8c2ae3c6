//! `cohortd check`: what was understood of the configuration, whether a start could open its ledger and listen at its
//! addresses, and whether LaunchDarkly knows the credentials. Prints no secret, only how many there are.
//!
//! Ends as a start would: with 64 if it would be refused for the configuration, with 69 if something it needs is not
//! to be had, with 70 if the ledger is damaged. Nothing is changed, and a daemon that runs is not disturbed.

use std::io::{ErrorKind, Result, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::{Exit, complain, place, unreached};
use crate::certificate;
use crate::config::{
    Config, Destination, Fault, Faults, LedgerDirectory, LedgerPlace, ReadFrom, Reading, Route,
    SegmentSection, Source, absolute,
};
use crate::launchdarkly::{CredentialsCheck, Verdict};
use crate::ledger::{self, DatabaseSettings};
use crate::membership::DestinationName;
use crate::operate::logging::chain;
use crate::receive::tls::TlsFiles;
use crate::receive::{Credential, Credentials};
use crate::service::{self, ServiceError};

/// Timeout of each of the two requests to LaunchDarkly.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is checked.
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Also ask LaunchDarkly whether it knows the credentials
    #[arg(long)]
    online: bool,
    /// Print one JSON object, for programs
    #[arg(long)]
    json: bool,
}

impl Check {
    /// Prints the configuration as understood, or every fault in it.
    pub async fn run(&self, file: Option<&Path>, out: &mut impl Write) -> Result<Exit> {
        let Reading { config, from, .. } = Source::locate(file).read();
        match config {
            Ok(config) => self.check(&config, &from, out).await,
            Err(faults) if self.json => print_faults(&faults, out).map(|()| Exit::BadUsage),
            Err(faults) => {
                complain(&faults.to_string());
                Ok(Exit::BadUsage)
            }
        }
    }

    async fn check(&self, config: &Config, from: &ReadFrom, out: &mut impl Write) -> Result<Exit> {
        let mut online = Vec::new();
        for destination in config.destinations.iter().filter(|_| self.online) {
            online.push(probe(destination).await);
        }
        let tried = Start::of(config, self.online).await;
        if self.json {
            print_json(config, from, &tried, &online, out)?;
        } else {
            print(config, from, &tried, &online, out)?;
        }
        let unanswered = online.iter().flatten().filter(|(_, finding)| !finding.good).count();
        if unanswered > 0 && !self.json {
            writeln!(out, "{unanswered} of LaunchDarkly's answers need attention, see above")?;
        }
        Ok(match (tried.exit(), unanswered) {
            (Exit::Done, 1..) => Exit::Unavailable,
            (exit, _) => exit,
        })
    }
}

/// Whether something that a start needs can be had.
struct Tried {
    /// What it was found to be, or what is wrong with it.
    words: String,
    exit: Exit,
}

impl Tried {
    fn good(words: impl Into<String>) -> Self {
        Self { words: words.into(), exit: Exit::Done }
    }

    fn is_good(&self) -> bool {
        self.exit == Exit::Done
    }

    /// Behind what it is about.
    fn shown(&self) -> String {
        match (self.is_good(), &*self.words) {
            (true, "") => String::new(),
            (true, words) => format!(" ({words})"),
            (false, _) => " (CANNOT BE USED, see below)".to_owned(),
        }
    }
}

/// What a start would meet.
struct Start {
    place: String,
    ledger: Tried,
    public: Tried,
    admin: Tried,
}

impl Start {
    async fn of(config: &Config, online: bool) -> Self {
        let place = &config.ledger.place;
        let (ledger, is_in_use) = match place {
            LedgerPlace::Directory(directory) => of_directory(directory),
            LedgerPlace::Database(_) if !online => {
                (Tried::good("--online asks whether it can be used"), false)
            }
            LedgerPlace::Database(address) => {
                let (connections, statement_timeout) = (1, config.ledger.statement_timeout);
                let settings = DatabaseSettings {
                    address: (**address).clone(),
                    connections,
                    statement_timeout,
                };
                let looked = ledger::look_at(settings).await;
                let unusable = |words| Tried { words, exit: Exit::Unavailable };
                (looked.map_or_else(unusable, Tried::good), false)
            }
        };
        Self {
            place: place::shown(place),
            ledger,
            public: listener("listen.address", config.listen.address, is_in_use),
            admin: listener("admin.address", config.admin.address, is_in_use),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Tried> {
        [&self.ledger, &self.public, &self.admin].into_iter()
    }

    /// As a start would end.
    fn exit(&self) -> Exit {
        self.all().map(|of| of.exit).find(|exit| *exit != Exit::Done).unwrap_or(Exit::Done)
    }
}

/// What a start would meet in a directory, and whether a daemon has it.
fn of_directory(place: &LedgerDirectory) -> (Tried, bool) {
    match (place::left_behind(place), place::tried(&place.path)) {
        (Some(words), _) => (Tried { words, exit: Exit::BadUsage }, false),
        (None, Ok(tried)) => (Tried::good(tried.words), tried.is_in_use),
        (None, Err(place::OfNoUse { words, exit })) => (Tried { words, exit }, false),
    }
}

/// `is_running`: a daemon has the ledger, and so the addresses too, as a rule.
fn listener(key: &'static str, address: SocketAddr, is_running: bool) -> Tried {
    match service::try_address(key, address) {
        Ok(()) => Tried::good(""),
        Err(ServiceError::Bind { source, .. })
            if is_running && source.kind() == ErrorKind::AddrInUse =>
        {
            Tried::good("in use, and so is the ledger: a daemon is running")
        }
        Err(error) => {
            let exit = if error.exit_code() == 69 { Exit::Unavailable } else { Exit::Internal };
            Tried { words: chain(&error), exit }
        }
    }
}

type Findings = Vec<(&'static str, Finding)>;

fn print(
    config: &Config,
    from: &ReadFrom,
    start: &Start,
    online: &[Findings],
    out: &mut impl Write,
) -> Result<()> {
    match &from.file {
        Some(file) => writeln!(out, "file: {}", absolute(file).display())?,
        None => writeln!(out, "file: none; {from}")?,
    }
    let variables = from.variables.join(", ");
    writeln!(out, "variables: {}", if variables.is_empty() { "none" } else { &variables })?;
    writeln!(out, "ledger: {}{}", start.place, start.ledger.shown())?;
    let Config { listen, admin, .. } = config;
    listens("public", listen.address, listen.tls.as_ref(), &start.public, out)?;
    listens("admin", admin.address, admin.tls.as_ref(), &start.admin, out)?;
    for (index, destination) in config.destinations.iter().enumerate() {
        describe(config, destination, out)?;
        for (what, finding) in online.get(index).into_iter().flatten() {
            writeln!(out, "  {what:<14} {}", finding.text)?;
        }
    }
    for route in &config.routes {
        writeln!(out, "route {}", route.name)?;
        describe_path(config, &route.name, &route.segment, out)?;
        writeln!(out, "  {:<14} {}", "feeds", fed(route).join(", "))?;
    }
    for warning in &config.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    if start.exit() != Exit::BadUsage {
        writeln!(out, "configuration is good")?;
    }
    start.all().filter(|of| !of.is_good()).try_for_each(|of| {
        let could = if of.exit == Exit::BadUsage {
            "the daemon would refuse to start"
        } else {
            "but the daemon could not start"
        };
        writeln!(out, "{could}: {}", of.words)
    })
}

fn fed(route: &Route) -> Vec<&str> {
    route.destinations.iter().map(DestinationName::as_str).collect()
}

/// Prints the outcome of the check as JSON.
fn print_json(
    config: &Config,
    from: &ReadFrom,
    start: &Start,
    online: &[Findings],
    out: &mut impl Write,
) -> Result<()> {
    let listener = |address: SocketAddr, tls: Option<&TlsFiles>, tried: &Tried| {
        let demands = tls.is_some_and(|files| files.client_ca_file.is_some());
        json!({
            "address": address,
            "tls": tls.is_some(),
            "client_certificates": demands,
            "usable": tried.is_good(),
            "words": tried.words,
        })
    };
    let destination = |(index, of): (usize, &Destination)| {
        let launchdarkly = &of.launchdarkly;
        let asked = online.get(index).map(|findings| {
            let finding = |(what, finding): &(&str, Finding)| {
                json!({ "what": what, "good": finding.good, "words": finding.text })
            };
            findings.iter().map(finding).collect::<Vec<_>>()
        });
        json!({
            "name": of.name.as_str(),
            "enabled": of.enabled,
            "path": of.segment.as_ref().map(|_| format!("/segment/{}", of.name)),
            "authentication": of.segment.as_ref().map(|of| authentication(&of.credentials)),
            "base_url": launchdarkly.base_url.as_str(),
            "client_side_id": launchdarkly.shown_client_side_id().to_string(),
            "project": launchdarkly.project,
            "environment": launchdarkly.environment,
            "mappings": of.mappings.all().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "online": asked,
        })
    };
    let route = |of: &Route| {
        json!({
            "name": of.name,
            "path": format!("/segment/{}", of.name),
            "authentication": authentication(&of.segment.credentials),
            "destinations": fed(of),
        })
    };
    // The configuration can be read, and a start would refuse it all the same.
    let refused = (start.exit() == Exit::BadUsage)
        .then(|| json!({ "key": "ledger.path", "value": start.place, "problem": start.ledger.words, "variable": null }));
    let all = json!({
        "good": refused.is_none(),
        "read_from": read_from(from),
        "ledger": {
            "path": start.place,
            "usable": start.ledger.is_good(),
            "words": start.ledger.words,
        },
        "listeners": {
            "public": listener(config.listen.address, config.listen.tls.as_ref(), &start.public),
            "admin": listener(config.admin.address, config.admin.tls.as_ref(), &start.admin),
        },
        "destinations": config.destinations.iter().enumerate().map(destination).collect::<Vec<_>>(),
        "routes": config.routes.iter().map(route).collect::<Vec<_>>(),
        "warnings": config.warnings,
        "faults": refused.into_iter().collect::<Vec<_>>(),
    });
    writeln!(out, "{all}")
}

fn print_faults(faults: &Faults, out: &mut impl Write) -> Result<()> {
    #[derive(Serialize)]
    struct Told<'a> {
        key: &'a str,
        value: Option<&'a str>,
        problem: &'a str,
        variable: Option<&'a str>,
    }
    let told = |Fault { key, shown, problem, variable }: &Fault| {
        json!(Told { key, value: shown.as_deref(), problem, variable: variable.as_deref() })
    };
    let all = json!({
        "good": false,
        "read_from": read_from(&faults.from),
        "faults": faults.iter().map(told).collect::<Vec<_>>(),
    });
    writeln!(out, "{all}")
}

fn read_from(ReadFrom { file, looked_for, variables }: &ReadFrom) -> serde_json::Value {
    let shown = |path: &std::path::PathBuf| absolute(path).display().to_string();
    json!({
        "file": file.as_ref().map(shown),
        "looked_for": looked_for.iter().map(shown).collect::<Vec<_>>(),
        "variables": variables,
    })
}

fn listens(
    name: &str,
    address: SocketAddr,
    tls: Option<&TlsFiles>,
    tried: &Tried,
    out: &mut impl Write,
) -> Result<()> {
    let scheme = if tls.is_some() { "https" } else { "http" };
    let demands = tls.is_some_and(|files| files.client_ca_file.is_some());
    let demands = if demands { ", client certificates required" } else { "" };
    writeln!(out, "{name} listener: {scheme}://{address}{demands}{}", tried.shown())
}

fn describe(config: &Config, destination: &Destination, out: &mut impl Write) -> Result<()> {
    let launchdarkly = &destination.launchdarkly;
    let delivery = &destination.delivery;
    let disabled = if destination.enabled { "" } else { " (disabled)" };
    writeln!(out, "destination {}{disabled}", destination.name)?;
    match &destination.segment {
        Some(segment) => describe_path(config, destination.name.as_str(), segment, out)?,
        None => writeln!(out, "  {:<14} only what a route brings", "receives")?,
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
    let (most, linger) = (delivery.policy.max_batch, delivery.policy.linger.as_millis());
    let concurrency = delivery.policy.concurrency;
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
    writeln!(out, "  {:<14} {}", "authenticates", authentication(&segment.credentials))
}

fn authentication(of: &Credentials) -> String {
    let counted = [
        (of.shared_secrets.len(), "shared secret"),
        (of.bearer_tokens.len(), "bearer token"),
        (of.write_keys.len(), "write key"),
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
    let required: Vec<&str> = of.require.iter().map(words).collect();
    let demand = match (&required[..], of.allow_unauthenticated) {
        ([], true) => "no credential is required".to_owned(),
        ([], false) => "any one suffices".to_owned(),
        _ => format!("{} required", required.join(" and ")),
    };
    let counted = if counted.is_empty() { "nothing".to_owned() } else { counted.join(", ") };
    format!("{counted}; {demand}")
}

/// The outcome of one request to LaunchDarkly.
struct Finding {
    good: bool,
    text: String,
}

async fn probe(destination: &Destination) -> Findings {
    let launchdarkly = &destination.launchdarkly;
    let endpoint = launchdarkly.endpoint(destination.delivery.request_timeout, 1);
    let credentials = match CredentialsCheck::new(&endpoint, &launchdarkly.client_sdk_url, PATIENCE)
    {
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
        "accepted; only the first delivery shows whether it has the rights createSegment and \
         updateIncluded, because this check succeeds without them too",
        "create an API access token with the rights createSegment and updateIncluded and set it \
         as service_token",
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
