//! The deployment files under config/ are well-formed, use only metrics and keys that exist, and are
//! accepted by the tools they are for.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cohortd::config::{Config, LedgerPlace};
use cohortd::operate::metrics::catalogue::{self, Kind};
use cohortd::operate::verdict::DestinationState;
use cohortd::receive::Credential;
use serde_json::{Value, json};

use crate::needs::{HAPROXY, KUBERNETES_VALIDATE, PROMTOOL, SH, SYSTEMD_ANALYZE};
use crate::{pages, python};

fn config(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(path)
}

fn text(path: &str) -> String {
    std::fs::read_to_string(config(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The documents of a YAML file.
fn yaml(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().unwrap_or_else(|| panic!("a list: {value}")).iter()
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("text: {value}"))
}

/// Runs an external tool that must find nothing to complain about.
fn accepts(tool: impl AsRef<Path>, arguments: &[&str]) {
    let tool = tool.as_ref();
    let said = Command::new(tool).args(arguments).output().expect("it is there");
    let complaint = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success(), "{} {arguments:?}: {complaint}", tool.display());
}

/// Checks that every metric in a query is in the catalogue, with the labels that the query uses.
fn knows_the_metrics_of(query: &str) {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = 0;
    for (at, _) in query.match_indices("cohortd_") {
        let rest = &query[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, behind) = rest.split_at(end);
        let metric = catalogue::ALL.iter().find(|metric| {
            let exposed = metric.exposed_name();
            match metric.kind {
                Kind::Histogram => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| name.strip_suffix(suffix) == Some(exposed.as_str())),
                Kind::Counter | Kind::Gauge => name == exposed,
            }
        });
        let metric = metric.unwrap_or_else(|| panic!("{name} in {query}"));
        let selector = behind.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        for matcher in selector.map_or("", |(inside, _)| inside).split("\",") {
            let label = matcher.split(['=', '!']).next().unwrap_or_default().trim();
            let of_the_scrape = ["", "instance", "job"].contains(&label);
            assert!(of_the_scrape || metric.labels.contains(&label), "{label} of {name}: {query}");
        }
        found += 1;
    }
    assert!(found > 0 || query.contains("up{"), "it asks for something of ours: {query}");
}

fn alert_rules_read_metrics_that_there_are_and_each_says_what_to_do() {
    let rules = yaml("prometheus/alerts.yaml");
    let mut names = Vec::new();
    for rule in list(&rules[0]["groups"]).flat_map(|group| list(&group["rules"])) {
        let name = str_of(&rule["alert"]);
        knows_the_metrics_of(str_of(&rule["expr"]));
        let runbook = str_of(&rule["annotations"]["runbook"]);
        assert!(runbook.ends_with('.') && runbook.len() > 40, "{name}: {runbook}");
        assert!(str_of(&rule["annotations"]["summary"]).ends_with('.'), "{name}");
        assert!(["critical", "warning"].contains(&str_of(&rule["labels"]["severity"])), "{name}");
        names.push(name);
    }
    assert!(names.contains(&"CohortdDestinationHeld") && names.len() > 10, "{names:?}");
}

fn prometheus_takes_the_alert_rules_and_they_fire_when_they_should() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("alerts.yaml"), text("prometheus/alerts.yaml")).expect("it is ours");
    let tests = include_str!("../deployment/alerts.yaml");
    std::fs::write(at("tests.yaml"), tests).expect("it is ours");
    accepts("promtool", &["check", "rules", str_path(&at("alerts.yaml"))]);
    accepts("promtool", &["test", "rules", str_path(&at("tests.yaml"))]);
    let scraping = config("prometheus/prometheus.yaml");
    accepts("promtool", &["check", "config", "--syntax-only", str_path(&scraping)]);
}

fn str_path(path: &Path) -> &str {
    path.to_str().expect("paths here are text")
}

fn dashboard() -> Value {
    serde_json::from_str(&text("grafana/dashboards/cohortd.json")).expect("it is JSON")
}

/// The Prometheus queries of a dashboard's panels and annotations.
fn queries(dashboard: &Value) -> Vec<&str> {
    let panels = list(&dashboard["panels"]).filter(|panel| panel["type"] != "row");
    let targets = panels.flat_map(|panel| list(&panel["targets"]));
    let asking = targets.chain(list(&dashboard["annotations"]["list"]));
    asking.map(|of| str_of(&of["expr"])).collect()
}

fn the_grafana_dashboard_asks_for_metrics_that_there_are() {
    let dashboard = dashboard();
    let panels: Vec<&Value> = list(&dashboard["panels"]).collect();
    let mut ids: Vec<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    ids.dedup();
    assert_eq!(ids.len(), panels.len(), "each panel has a number of its own");
    let queries = queries(&dashboard);
    for query in &queries {
        knows_the_metrics_of(query);
    }
    assert!(queries.len() > 20, "{queries:?}");
    let state = panels.iter().find(|panel| panel["title"] == "State").expect("there is one");
    let words = &state["fieldConfig"]["defaults"]["mappings"][0]["options"];
    let words = words.as_object().expect("a map").values().map(|of| str_of(&of["text"]));
    assert!(words.eq(DestinationState::ALL.map(DestinationState::word)), "{state}");
    for variable in list(&dashboard["templating"]["list"]).filter(|of| of["type"] == "query") {
        knows_the_metrics_of(str_of(&variable["query"]["query"]));
    }
}

/// Checked as rules, since JSON is YAML.
fn prometheus_takes_the_queries_of_the_dashboard() {
    let dashboard = dashboard();
    let rule = |(index, query): (usize, &str)| {
        let query = query.replace("$__rate_interval", "1m").replace('$', "");
        json!({"record": format!("query:{index}"), "expr": query})
    };
    let rules: Vec<Value> = queries(&dashboard).into_iter().enumerate().map(rule).collect();
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("queries.yaml");
    let groups = json!({"groups": [{"name": "queries", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).expect("it is ours");
    accepts("promtool", &["check", "rules", "--lint=none", str_path(&file)]);
}

/// Both credentials must be required, because a signature covers only the first event of a batch.
fn demands_both(config: &Config) {
    let segment = config.destinations[0].segment.as_ref().expect("it has a path");
    assert_eq!(segment.credentials.require, [Credential::Signature, Credential::Bearer]);
}

/// The URL of a ledger that replicas share, as a line of the manual writes it: the one with these words.
fn ledger_url(words: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(folder.path().join("ledger-password"), "0123456789abcdef\n")
        .expect("it is ours");
    let lines = pages::lines_with(words);
    let line = lines.lines().find(|line| line.starts_with("printf ")).expect("it writes it");
    let typed = Command::new("sh").args(["-euc", line]).current_dir(folder.path()).status();
    assert!(typed.expect("a shell").success(), "{line}");
    std::fs::read_to_string(folder.path().join("ledger-url")).expect("it is written")
}

/// The database of the ledger.
fn database(config: &Config) -> String {
    match &config.ledger.place {
        LedgerPlace::Database(address) => address.to_string(),
        LedgerPlace::Directory(directory) => panic!("{directory:?}"),
    }
}

/// Creates a folder of secrets, and loads a configuration with that folder in place of `mounted`.
fn loaded(
    toml: Option<&str>,
    variables: &[(String, String)],
    mounted: &str,
    secrets: &[&str],
) -> Config {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for secret in secrets {
        let path = folder.path().join(secret);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("it is ours");
        let text = match *secret {
            "cohortd/ledger-url" => ledger_url("host=/run/postgresql"),
            "ledger-url" => ledger_url("@db.internal/"),
            _ => format!("a-secret-of-its-own-{secret}\n"),
        };
        std::fs::write(&path, text).expect("it is ours");
        let of_the_group = std::fs::Permissions::from_mode(0o440); // as the manifests say
        std::fs::set_permissions(path, of_the_group).expect("it is ours");
    }
    let here = |text: &str| {
        let text = text.replace(mounted, str_path(folder.path()));
        text.replace("replace-with-the-client-side-id", "an-id")
    };
    let file = toml.map(|toml| {
        let file = folder.path().join("cohortd.toml");
        std::fs::write(&file, here(toml)).expect("it is ours");
        file
    });
    let variables = variables.iter().map(|(name, value)| (name.clone(), here(value)));
    Config::load_from(file.as_deref(), variables).unwrap_or_else(|faults| panic!("{faults}"))
}

/// Alerts are sent somewhere, and from there to a named receiver.
fn the_alertmanager_is_the_one_that_prometheus_tells() {
    let scraping = &yaml("prometheus/prometheus.yaml")[0];
    let told = &scraping["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"][0];
    let (service, port) = str_of(told).split_once(':').expect("a name and a port");
    let compose = &yaml("compose.yaml")[0];
    let alertmanager = &compose["services"][service];
    let publishes =
        list(&alertmanager["ports"]).any(|of| str_of(of).ends_with(&format!(":{port}")));
    assert!(publishes, "{alertmanager}");
    let routing = &yaml("prometheus/alertmanager.yaml")[0];
    let names: Vec<&Value> =
        list(&routing["receivers"]).map(|receiver| &receiver["name"]).collect();
    assert!(names.contains(&&routing["route"]["receiver"]), "{routing}");
    let rules = text("prometheus/alerts.yaml");
    for matcher in list(&routing["inhibit_rules"][0]["source_matchers"]) {
        let (_, alert) = str_of(matcher).split_once(" = ").expect("a name and a value");
        assert!(rules.contains(&format!("alert: {alert}\n")), "{alert}");
    }
}

/// The environment of a container of the image that is given these variables.
fn in_the_image(given: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let of_the_image = include_str!("../../Dockerfile").lines();
    let of_the_image = of_the_image.filter_map(|line| line.strip_prefix("ENV COHORTD_"));
    let pairs = of_the_image.map(|line| line.split_once('=').expect("a pair"));
    let mut variables: BTreeMap<String, String> =
        pairs.map(|(name, value)| (format!("COHORTD_{name}"), value.to_owned())).collect();
    assert!(variables.contains_key("COHORTD_LEDGER__PATH"), "{variables:?}");
    variables.extend(given);
    variables.into_iter().collect()
}

/// The configuration of the daemon in a Compose file, where it has these secrets.
fn configured_by(compose: &Value, secrets: &[&str]) -> Config {
    let daemon = &compose["services"]["cohortd"];
    let variables = daemon["environment"].as_object().expect("a map");
    let variables = variables
        .iter()
        .map(|(name, value)| (name.clone(), str_of(value).to_owned()))
        .map(|(name, value)| (name, if value.starts_with("${") { "an-id".into() } else { value }));
    let variables = in_the_image(variables);
    let config_made = loaded(None, &variables, "/run/secrets", secrets);
    assert_eq!(config_made.destinations.len(), 1);
    demands_both(&config_made);
    assert_eq!(config_made.warnings, [""; 0]);
    let stop: u64 = str_of(&daemon["stop_grace_period"]).trim_end_matches('s').parse().expect("s");
    assert!(Duration::from_secs(stop) > config_made.stop.grace_period);
    assert_eq!((&daemon["read_only"], &daemon["cap_drop"]), (&json!(true), &json!(["ALL"])));
    config_made
}

fn mounts_what_is_there(compose: &Value) {
    for (name, service) in compose["services"].as_object().expect("a map") {
        for mount in list(&service["volumes"]) {
            let (from, _) = str_of(mount).split_once(':').expect("from and to");
            let is_there = match from.strip_prefix("./") {
                Some(path) if path.starts_with("secrets/") => true, // tests/it/containers.rs
                Some(path) => config(path).exists(),
                None => compose["volumes"].get(from).is_some(),
            };
            assert!(is_there, "{name}: {mount}");
        }
    }
}

fn the_compose_file_makes_a_configuration_and_mounts_what_is_there() {
    let compose = &yaml("compose.yaml")[0];
    let secrets = [
        "cohortd/admin",
        "cohortd/segment",
        "cohortd/segment-bearer",
        "cohortd/launchdarkly",
        "prometheus/cohortd",
    ];
    configured_by(compose, &secrets);
    mounts_what_is_there(compose);
    for file in ["datasources/prometheus.yaml", "dashboards/cohortd.yaml"] {
        assert_eq!(yaml(&format!("grafana/provisioning/{file}"))[0]["apiVersion"], 1);
    }
}

fn the_compose_file_of_replicas_shares_a_database_and_has_them_found() {
    let compose = &yaml("compose.replicas.yaml")[0];
    let secrets = [
        "cohortd/admin",
        "cohortd/segment",
        "cohortd/segment-bearer",
        "cohortd/launchdarkly",
        "cohortd/ledger-url",
    ];
    let config_made = configured_by(compose, &secrets);
    mounts_what_is_there(compose);
    let socket = "PostgreSQL at /run/postgresql/.s.PGSQL.5432, database cohortd";
    assert_eq!(database(&config_made), socket);

    let (daemon, server) = (&compose["services"]["cohortd"], &compose["services"]["postgresql"]);
    let mounts = |service: &Value, at: &str| list(&service["volumes"]).any(|of| of == at);
    assert!(mounts(daemon, "postgresql-socket:/run/postgresql:ro"), "{daemon}");
    assert!(mounts(server, "postgresql-socket:/var/run/postgresql"), "{server}");
    assert_eq!(server["environment"]["POSTGRES_DB"], "cohortd");
    // What the manual puts there, and the server and its first script read.
    let typed = pages::lines_with("config/secrets/postgresql/ledger");
    for name in ["POSTGRES_PASSWORD_FILE", "LEDGER_PASSWORD_FILE"] {
        let file = str_of(&server["environment"][name]);
        let made = file.replace("/run/secrets/", "config/secrets/");
        assert!(typed.lines().any(|line| line.ends_with(&made)), "{name}: {file}");
    }
    assert!(text("postgresql/ledger.sql").contains("$LEDGER_PASSWORD_FILE"));

    // Before that, a replica would say that its password is refused.
    assert_eq!(daemon["depends_on"]["postgresql"]["condition"], "service_healthy");
    assert!(!server["healthcheck"]["test"].is_null(), "{server}");
    // Every later command reads the file too, so that the ID is not typed with one of them.
    assert!(pages::lines_with("echo CLIENT_SIDE_ID=").contains(" > config/.env\n"));

    let replicas = daemon["deploy"]["replicas"].as_u64().expect("a number");
    let connections = u64::try_from(config_made.ledger.connections).expect("a few");
    assert!((replicas + 1) * connections < 90, "PostgreSQL has 100 unless it is told");
    let proxy = text("haproxy/haproxy.cfg");
    for (name, address) in
        [("replica", config_made.listen.address), ("operator", config_made.admin.address)]
    {
        let template = format!("server-template {name} 1-8 cohortd:{} ", address.port());
        assert!(proxy.contains(&template) && (2..=8).contains(&replicas), "{template}");
    }
    let noticed = Duration::from_secs(2);
    assert!(proxy.contains("check inter 1s fall 2 ") && config_made.stop.drain_delay > noticed);
    assert!(proxy.contains("init-state down"), "a replica that starts is asked first");
}

fn haproxy_takes_the_way_in_to_replicas() {
    accepts("haproxy", &["-c", "-q", "-f", str_path(&config("haproxy/haproxy.cfg"))]);
}

/// Loads a configuration as in a pod with this container, with the Secrets that the manual creates.
fn in_the_pod(toml: &str, container: &Value) -> Config {
    let mut made = pages::lines_with("kubectl create secret generic cohortd");
    if toml.contains("ledger-url") {
        made += &pages::lines_with("kubectl create secret generic cohortd-ledger");
    }
    let keys = made.split("--from-file=").skip(1);
    let keys: Vec<&str> = keys.map(|rest| rest.split_once('=').expect("a file for it").0).collect();
    let variables = container["env"].as_array().into_iter().flatten();
    let variables =
        variables.map(|of| (str_of(&of["name"]).to_owned(), str_of(&of["value"]).to_owned()));
    let variables = in_the_image(variables);
    loaded(Some(toml), &variables, "/run/secrets/cohortd", &keys)
}

/// What runs the pods, by the file.
const WORKLOADS: [(&str, &str); 2] =
    [("kubernetes/cohortd.yaml", "StatefulSet"), ("kubernetes/replicas.yaml", "Deployment")];

fn pods_in_kubernetes_are_locked_down_and_end_in_time() {
    for (file, kind) in WORKLOADS {
        let manifests = yaml(file);
        let of_kind = |kind: &str| manifests.iter().find(|manifest| manifest["kind"] == kind);
        let toml = str_of(&of_kind("ConfigMap").expect("one")["data"]["cohortd.toml"]);
        let pod = &of_kind(kind).expect("one")["spec"]["template"]["spec"];
        let container = &pod["containers"][0];
        let config_made = in_the_pod(toml, container);
        demands_both(&config_made);
        assert_eq!(config_made.warnings, [""; 0]);
        let patience = pod["terminationGracePeriodSeconds"].as_u64().expect("a number");
        assert!(Duration::from_secs(patience) > config_made.stop.grace_period);
        let probe = &container["readinessProbe"];
        let noticed =
            ["periodSeconds", "failureThreshold"].map(|of| probe[of].as_u64().expect("one"));
        let noticed = Duration::from_secs(noticed[0] * noticed[1]);
        assert!(config_made.stop.drain_delay > noticed, "its end is noticed");
        assert_eq!(probe["httpGet"]["path"], "/readyz");
        assert_eq!(container["livenessProbe"]["httpGet"]["path"], "/livez");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["enableServiceLinks"], false, "COHORTD_PORT would be an unknown key");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        let ports: Vec<_> =
            list(&container["ports"]).map(|port| port["containerPort"].as_u64()).collect();
        let listening = [config_made.listen.address, config_made.admin.address];
        assert_eq!(ports, listening.map(|address| Some(u64::from(address.port()))));
    }
}

fn a_ledger_on_a_volume_has_one_writer() {
    let manifests = yaml("kubernetes/cohortd.yaml");
    let of_kind = |kind: &str| manifests.iter().find(|manifest| manifest["kind"] == kind);
    assert!(of_kind("PodDisruptionBudget").is_none(), "of one pod it would block a node drain");
    let set = &of_kind("StatefulSet").expect("one")["spec"];
    assert_eq!(set["replicas"], 1);
    let startup = &set["template"]["spec"]["containers"][0]["startupProbe"];
    assert_eq!(startup["httpGet"]["path"], "/readyz");
}

fn replicas_in_kubernetes_share_a_database_and_are_never_away_together() {
    let manifests = yaml("kubernetes/replicas.yaml");
    let of_kind =
        |kind: &str| manifests.iter().find(|manifest| manifest["kind"] == kind).expect("one");
    let deployment = &of_kind("Deployment")["spec"];
    assert!(deployment["replicas"].as_u64() > Some(1));
    assert_eq!(
        deployment["strategy"]["rollingUpdate"],
        json!({"maxUnavailable": 0, "maxSurge": 1})
    );
    let labels = &deployment["template"]["metadata"]["labels"];
    let budget = &of_kind("PodDisruptionBudget")["spec"];
    assert_eq!(
        (&budget["maxUnavailable"], &budget["selector"]["matchLabels"]),
        (&json!(1), labels)
    );
    // While the database is away none is ready, and nodes can be drained all the same.
    assert_eq!(budget["unhealthyPodEvictionPolicy"], "AlwaysAllow");
    let pod = &deployment["template"]["spec"];
    let mut spread = list(&pod["topologySpreadConstraints"]);
    assert!(spread.all(|of| &of["labelSelector"]["matchLabels"] == labels), "{pod}");
    let container = &pod["containers"][0];
    assert!(container["startupProbe"].is_null(), "it would end pods that wait for the database");

    let toml = str_of(&of_kind("ConfigMap")["data"]["cohortd.toml"]);
    let address = database(&in_the_pod(toml, container));
    let (_, port) = address.split_once("db.internal:").expect("its host");
    let port: u64 = port.split(',').next().and_then(|port| port.parse().ok()).expect("its port");
    let open = list(&of_kind("NetworkPolicy")["spec"]["egress"]);
    let mut open = open.flat_map(|rule| list(&rule["ports"])).map(|of| &of["port"]);
    assert!(open.any(|of| *of == port), "the database can be reached");
}

/// The Ingress, monitors and the like refer to its ports and labels.
fn what_is_around_the_pods_finds_them() {
    WORKLOADS.into_iter().for_each(finds_the_pods);
}

fn finds_the_pods((file, kind): (&str, &str)) {
    let manifests = yaml(file);
    let of_kind = |kind: &str| {
        manifests.iter().filter(move |manifest| manifest["kind"] == kind).collect::<Vec<&Value>>()
    };
    let pod = &of_kind(kind)[0]["spec"]["template"];
    let labels = &pod["metadata"]["labels"];
    let container = &pod["spec"]["containers"][0];
    let ports: Vec<&Value> = list(&container["ports"]).map(|port| &port["name"]).collect();
    let policy = &of_kind("NetworkPolicy")[0]["spec"];
    assert_eq!(&policy["podSelector"]["matchLabels"], labels);
    let open = list(&policy["ingress"]).map(|rule| &rule["ports"][0]["port"]);
    assert!(open.eq(ports.iter().copied()), "{policy}");
    let admin = list(&policy["ingress"]).find(|rule| rule["ports"][0]["port"] == "admin");
    assert!(admin.is_some_and(|rule| rule["from"].is_array()), "not for everybody: {policy}");

    let monitor = &yaml("kubernetes/podmonitor.yaml")[0]["spec"];
    assert_eq!(&monitor["selector"]["matchLabels"], labels);
    let scraped = &monitor["podMetricsEndpoints"][0];
    assert!(ports.contains(&&scraped["port"]), "{scraped}");
    let key = str_of(&scraped["authorization"]["credentials"]["key"]);
    let toml = str_of(&of_kind("ConfigMap")[0]["data"]["cohortd.toml"]);
    assert!(toml.contains(&format!("read_tokens_file = \"/run/secrets/cohortd/{key}\"")), "{toml}");

    let ingress = &yaml("kubernetes/ingress.yaml")[0];
    let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
    let is_it = |service: &&&Value| service["metadata"]["name"] == backend["name"];
    let services = of_kind("Service");
    let service = services.iter().find(is_it).expect("there is such a service");
    assert_eq!(service["spec"]["ports"][0]["name"], backend["port"]["name"]);
    let limit = &ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-body-size"];
    let body = in_the_pod(toml, container).listen.limits.body_limit_bytes >> 20;
    assert_eq!(limit, &json!(format!("{body}m")), "what Segment may send passes");
}

fn kubernetes_takes_the_manifests() {
    let validate = python::KUBERNETES_VALIDATE.program("kubernetes-validate");
    for file in ["kubernetes/cohortd.yaml", "kubernetes/replicas.yaml", "kubernetes/ingress.yaml"] {
        accepts(&validate, &["--strict", str_path(&config(file))]);
    }
}

/// The values of a key in a unit.
fn values(unit: &str, key: &str) -> Vec<String> {
    let key = format!("{key}=");
    unit.lines().filter_map(|line| line.strip_prefix(key.as_str()).map(str::to_owned)).collect()
}

/// The configuration under a unit, beside the file of the README.
fn configured_under(unit: &str) -> Config {
    let pairs = values(unit, "Environment");
    let pairs = pairs.iter().map(|pair| pair.split_once('=').expect("a pair"));
    // The last one of a name counts.
    let variables: BTreeMap<String, String> =
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let variables: Vec<(String, String)> = variables.into_iter().collect();
    let rest = pages::file_with("toml", "service_token_file = \"launchdarkly-token\"");
    let secrets = values(unit, "LoadCredential");
    let secrets: Vec<&str> = secrets.iter().filter_map(|of| of.split(':').next()).collect();
    let config_made = loaded(Some(rest), &variables, "%d", &secrets);
    assert_eq!(config_made.warnings, [""; 0]);
    demands_both(&config_made);
    config_made
}

fn the_systemd_unit_becomes_a_replica_by_what_the_manual_adds() {
    let added = pages::file_with("ini", "LoadCredential=ledger-url:");
    let config_made = configured_under(&format!("{}\n{added}", text("cohortd.service")));
    assert_eq!(database(&config_made), "PostgreSQL at db.internal:5432, database cohortd");
}

fn the_systemd_unit_is_sound_and_makes_a_configuration() {
    let unit = text("cohortd.service");
    let config_made = configured_under(&unit);
    let values = |key: &str| values(&unit, key).into_iter();
    let stop = values("TimeoutStopSec").next().and_then(|text| text.parse().ok()).expect("seconds");
    assert!(Duration::from_secs(stop) > config_made.stop.grace_period);
    assert_eq!(values("Type").next().as_deref(), Some("notify"));
    assert!(values("WatchdogSec").next().is_some());
    assert_eq!(
        values("StartLimitIntervalSec").next().as_deref(),
        Some("0"),
        "it is never given up"
    );
    assert_eq!(values("LimitCORE").next().as_deref(), Some("0"), "the watchdog aborts");
}

fn the_image_says_the_version_that_it_has() {
    let dockerfile = include_str!("../../Dockerfile");
    let version = dockerfile.lines().find_map(|line| line.strip_prefix("ARG VERSION="));
    assert_eq!(version, Some(env!("CARGO_PKG_VERSION")));
}

/// Files that the README and the manual have people create in the source tree are not committed by mistake.
fn git_ignores_what_the_lines_of_the_pages_make() {
    let ignored = include_str!("../../.gitignore");
    for made in
        ["segment-secret", "admin-token", "prometheus-token", "ledger-password", "ledger-url"]
    {
        assert!(pages::lines_with(&format!("> {made}")).contains(made));
        assert!(ignored.lines().any(|line| line == format!("/{made}")), "{made}");
    }
    for made in
        ["segment-bearer", "launchdarkly-token", "cohortd.toml", "private", "config/secrets"]
    {
        assert!(ignored.lines().any(|line| line == format!("/{made}")), "{made}");
    }
}

fn systemd_takes_the_unit() {
    // The unit names a binary that need not be installed here.
    let unit = text("cohortd.service");
    let unit = unit.replace("/usr/local/bin/cohortd", env!("CARGO_BIN_EXE_cohortd"));
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("cohortd.service");
    std::fs::write(&file, unit).expect("it is ours");
    accepts("systemd-analyze", &["verify", str_path(&file)]);
}

/// A profile inherits what another one says of a package: what is not optimised for a first look would be shipped so.
fn what_is_shipped_is_optimised_whatever_a_first_look_leaves_out() {
    let manifest = include_str!("../../Cargo.toml");
    let packages = |profile: &str| -> BTreeMap<&str, &str> {
        let (_, section) = manifest.split_once(&format!("\n[{profile}.package]\n")).expect(profile);
        let lines = section.lines().take_while(|line| !line.is_empty());
        lines.map(|line| line.split_once(".opt-level = ").expect("a level")).collect()
    };
    let (first_look, shipped) = (packages("profile.release"), packages("profile.dist"));
    assert!(first_look.len() > 10 && first_look.values().all(|level| *level == "0"));
    assert!(first_look.keys().eq(shipped.keys()), "{first_look:?} {shipped:?}");
    assert!(shipped.values().all(|level| ["3", "\"s\""].contains(level)), "{shipped:?}");
    for profile in ["bench", "guard"] {
        let inherits = format!("\n[profile.{profile}]\ninherits = \"dist\"\n");
        assert!(manifest.contains(&inherits), "{profile}");
    }
}

tests![
    what_is_shipped_is_optimised_whatever_a_first_look_leaves_out,
    alert_rules_read_metrics_that_there_are_and_each_says_what_to_do,
    prometheus_takes_the_alert_rules_and_they_fire_when_they_should.needs(&PROMTOOL),
    the_grafana_dashboard_asks_for_metrics_that_there_are,
    prometheus_takes_the_queries_of_the_dashboard.needs(&PROMTOOL),
    the_alertmanager_is_the_one_that_prometheus_tells,
    the_compose_file_makes_a_configuration_and_mounts_what_is_there,
    the_compose_file_of_replicas_shares_a_database_and_has_them_found.needs(&SH),
    haproxy_takes_the_way_in_to_replicas.needs(&HAPROXY),
    pods_in_kubernetes_are_locked_down_and_end_in_time.needs(&SH),
    a_ledger_on_a_volume_has_one_writer,
    replicas_in_kubernetes_share_a_database_and_are_never_away_together.needs(&SH),
    what_is_around_the_pods_finds_them.needs(&SH),
    kubernetes_takes_the_manifests.needs(&KUBERNETES_VALIDATE),
    the_systemd_unit_is_sound_and_makes_a_configuration,
    the_systemd_unit_becomes_a_replica_by_what_the_manual_adds.needs(&SH),
    the_image_says_the_version_that_it_has,
    git_ignores_what_the_lines_of_the_pages_make,
    systemd_takes_the_unit.needs(&SYSTEMD_ANALYZE),
];
