//! Segment's Actions protocol on the admin listener: recorded requests reach LaunchDarkly, dry runs show
//! what would be sent, and a token goes to the configured hosts and nowhere else (P8).
//!
//! Shapes and messages are those with which Segment's development server answered the same requests.

use cohortd::sandbox::{StandIn, View};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Cohortd, DEADLINE, ENVIRONMENT, Installation, SERVICE_TOKEN, identify, launchdarkly, production,
};

const NOW_MS: i64 = 1_750_000_000_000;
const PATH: &str = "/api/v2/segment-targets/segment-audiences";
const PERSON: &str = "planted-person";
const SEGMENT_APP: &str = "https://app.segment.com";

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(DEADLINE).build().expect("a client")
}

async fn ask(cohortd: &Cohortd, path: &str, body: &Value) -> (u16, Value) {
    let url = format!("http://{}/actions/{path}", cohortd.admin);
    let answer = client().post(url).json(body).send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.expect("JSON"))
}

fn settings(client_side_id: &str) -> Value {
    json!({"apiKey": "whatever-the-tester-typed", "clientId": client_side_id})
}

async fn sync(cohortd: &Cohortd, payload: Value) -> Value {
    let body = json!({"payload": payload, "settings": settings(ENVIRONMENT), "mapping": {}});
    let (status, answer) = ask(cohortd, "syncAudience", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// An exchange as the development server writes it, but for the answer.
fn request(launchdarkly: &StandIn, members: &[(&str, bool)]) -> Value {
    let member = |(user, value): &(&str, bool)| json!({"userId": user, "cohortName": "Vip", "cohortId": "aud_vip", "value": value});
    let batch: Vec<Value> = members.iter().map(member).collect();
    let body = json!({"environmentId": ENVIRONMENT, "contextKind": "user", "batch": batch});
    json!({
        "url": format!("{}{PATH}", launchdarkly.url().as_str().trim_end_matches('/')),
        "method": "POST",
        "headers": {
            "authorization": "<redacted>",
            "content-type": "application/json",
            "ld-api-version": "20240415",
            "user-agent": concat!("cohortd/", env!("CARGO_PKG_VERSION")),
        },
        "body": body.to_string(),
    })
}

async fn holds(launchdarkly: &StandIn, members: &[&str]) {
    let there = |view: &View<'_>| {
        view.segment(ENVIRONMENT, "aud_vip")
            .is_some_and(|of| of.members.iter().map(String::as_str).eq(members.iter().copied()))
    };
    launchdarkly.until(DEADLINE, there).await.expect("the segment is as recorded");
}

async fn what_is_performed_is_recorded_and_told_by_the_courier() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "trace");
    let cohortd = installation.start();
    let (status, _) = ask(&cohortd, "../api/v1/destinations/production/pause", &json!({})).await;
    assert_eq!(status, 200);

    let answer = sync(&cohortd, identify(PERSON, "vip", true, NOW_MS)).await;
    let [exchange] = &answer.as_array().expect("a list")[..] else { panic!("{answer}") };
    assert_eq!(exchange["request"], request(&launchdarkly, &[(PERSON, true)]));
    let response = &exchange["response"];
    assert_eq!((&response["statusCode"], &response["headers"]), (&json!(202), &json!({})));
    let standing = |recorded, waiting, told, superseded| {
        json!({"destination": "production", "recorded": recorded, "waiting": waiting, "told": told,
            "superseded": superseded, "parked": 0})
    };
    assert_eq!(response["body"], standing(1, 1, 0, 0));
    assert_eq!(launchdarkly.calls().total, 0, "nothing calls LaunchDarkly around the ledger");

    // What is recorded survives a kill.
    cohortd.kill();
    let cohortd = installation.start();
    ask(&cohortd, "../api/v1/destinations/production/resume", &json!({})).await;
    holds(&launchdarkly, &[PERSON]).await;
    installation.drained().await;

    let answer = sync(&cohortd, identify(PERSON, "vip", true, NOW_MS)).await;
    assert_eq!(answer[0]["response"]["body"], standing(1, 0, 1, 0), "a repeat");
    let answer = sync(&cohortd, identify(PERSON, "vip", false, NOW_MS - 1000)).await;
    assert_eq!(answer[0]["response"]["body"], standing(1, 0, 0, 1), "an older event");
    holds(&launchdarkly, &[PERSON]).await;
    let log = cohortd.stop().1.join("\n");
    assert!(log.contains("events of the actions protocol recorded"), "it is in the audit log");
    assert!(!log.contains(PERSON) && !log.contains("whatever-the-tester-typed"), "{log}");
}

async fn a_batch_is_a_call_for_each_audience_and_a_failure_for_each_event_without_one() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let other_audience = identify("ada", "new", true, NOW_MS);
    let answer = sync(
        &cohortd,
        json!([
            identify("ada", "vip", true, NOW_MS),
            {"type": "page"},
            identify("bob", "vip", true, NOW_MS),
            identify("bob", "vip", false, NOW_MS - 1), // older, though it comes later
            other_audience,
            7,
        ]),
    )
    .await;
    let [vip, new, page, number] = &answer.as_array().expect("a list")[..] else {
        panic!("{answer}")
    };
    assert_eq!(vip["request"], request(&launchdarkly, &[("ada", true), ("bob", true)]));
    let body = new["request"]["body"].as_str().expect("text");
    assert!(body.contains("\"cohortId\":\"aud_new\""), "{body}");
    assert_eq!((&page["index"], &page["statusCode"]), (&json!(1), &json!(400)));
    assert_eq!((&number["index"], &number["requestError"]), (&json!(5), &json!(true)));
    holds(&launchdarkly, &["ada", "bob"]).await;

    // The audience already has a kind: requests of another kind are refused, all others are accepted.
    let mapping = json!({"context_kind": {"@path": "$.traits.kind"}});
    let mut of_another_kind = identify("cyd", "vip", true, NOW_MS);
    of_another_kind["traits"]["kind"] = json!("device");
    let mut of_the_kind = identify("dan", "vip", true, NOW_MS);
    of_the_kind["traits"]["kind"] = json!("user");
    let body = json!({
        "payload": [of_another_kind, of_the_kind], "settings": settings(ENVIRONMENT), "mapping": mapping,
    });
    let (_, answer) = ask(&cohortd, "syncAudience", &body).await;
    assert_eq!(answer[0]["request"], request(&launchdarkly, &[("dan", true)]));
    assert_eq!((&answer[1]["index"], answer[2].is_null()), (&json!(0), true));
    assert!(answer[1]["fields"]["context_kind"].is_string(), "{answer}");
    holds(&launchdarkly, &["ada", "bob", "dan"]).await;
    assert!(cohortd.stop().0.success());
}

async fn a_dry_run_shows_the_calls_and_does_nothing() {
    let launchdarkly = launchdarkly().await;
    let installation = Installation::new(&launchdarkly);
    let cohortd = installation.start();
    let body = |id: &str| json!({"payload": identify("ada", "vip", true, NOW_MS), "settings": settings(id)});
    for path in ["syncAudience?dry_run", "syncAudience?dry_run=true"] {
        let (_, answer) = ask(&cohortd, path, &body(ENVIRONMENT)).await;
        assert_eq!(answer[0]["request"], request(&launchdarkly, &[("ada", true)]));
        assert_eq!(answer[0]["response"]["statusCode"], 0);
        assert!(answer[1].is_null(), "{answer}");
    }
    // Without a destination nothing can be recorded, but everything can be shown.
    let (_, answer) = ask(&cohortd, "syncAudience?dry_run", &body("elsewhere")).await;
    let shown = &answer[0]["request"];
    assert_eq!(shown["url"], format!("https://app.launchdarkly.com{PATH}"));
    assert!(shown["body"].as_str().is_some_and(|body| body.contains("\"elsewhere\"")), "{shown}");
    for path in ["syncAudience?dryrun", "syncAudience?dry_run=maybe"] {
        assert_eq!(ask(&cohortd, path, &body(ENVIRONMENT)).await.0, 400, "{path}");
    }
    assert!(cohortd.stop().0.success());
    let members = installation.ledger().reader().members(&production()).expect("a reading");
    assert!(members.is_empty());
    assert_eq!(launchdarkly.calls().total, 0);
}

async fn what_cannot_be_performed_is_one_failure_with_its_fields() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let off = "destinations.off.launchdarkly";
    installation.set("destinations.off.enabled", "false");
    installation.set("destinations.off.segment.shared_secrets", "secret");
    installation.set(&format!("{off}.client_side_id"), "off");
    installation.set(&format!("{off}.service_token"), "token");
    let cohortd = installation.start();
    let event = || identify("ada", "vip", true, NOW_MS);
    let with = |changes: Value| {
        let mut body =
            json!({"payload": event(), "settings": settings(ENVIRONMENT), "mapping": {}});
        for (key, value) in changes.as_object().expect("an object") {
            body[key] = value.clone();
        }
        body
    };
    // what differs, status, start of the message, field
    let rows = [
        (
            json!({"settings": settings("elsewhere")}),
            404,
            "Nothing was recorded: no conf",
            "clientId",
        ),
        (json!({"settings": settings("off")}), 503, "Nothing was recorded: destination off", ""),
        (
            json!({"settings": {}}),
            400,
            "The root value is missing the required field 'clientId'.",
            "clientId",
        ),
        (
            json!({"mapping": {"user_email": {"@nope": 1}, "context_key": {"@path": 7}}}),
            400,
            "mapping: user_email",
            "user_email",
        ),
        (
            json!({"mapping": {"segment_audience_id": ""}}),
            400,
            "missing_field: ",
            "segment_audience_id",
        ),
        (json!({"mapping": {"context_key": "bad"}}), 400, "invalid_field: ", "context_key"),
        (json!({"mapping": {"segment_user_id": null}}), 400, "no_context_key: ", "context_key"),
        (
            json!({"mapping": {"segment_audience_key": "x"}}),
            400,
            "membership_unknown",
            "traits_or_props",
        ),
        (json!({"payload": {}}), 400, "not_an_audience: ", ""),
        (json!({"payload": null}), 400, "not_an_audience: ", ""),
        (json!({"payload": "text"}), 400, "not_an_object: ", ""),
        (json!({"payload": vec![event(); 4001]}), 413, "Nothing was recorded: more than 4000", ""),
    ];
    for (changes, status, message, field) in rows {
        let (http, answer) = ask(&cohortd, "syncAudience", &with(changes)).await;
        assert_eq!(http, 200, "{answer}");
        let [failure] = &answer.as_array().expect("a list")[..] else { panic!("{answer}") };
        assert_eq!(
            (&failure["statusCode"], &failure["requestError"]),
            (&json!(status), &json!(true))
        );
        let said = failure["message"].as_str().expect("text");
        assert!(said.starts_with(message), "{failure}");
        assert_eq!(failure["fields"].is_null(), field.is_empty(), "{failure}");
        assert!(field.is_empty() || failure["fields"][field].is_string(), "{failure}");
        assert_eq!((&failure["stack"], failure["index"].is_null()), (&json!([]), true));
        assert!(!answer.to_string().contains("ada"), "{answer}");
    }
    for (body, status) in [("[]", 422), ("nonsense", 400), ("{\"settings\":7}", 422)] {
        let url = format!("http://{}/actions/syncAudience", cohortd.admin);
        let request = client().post(url).header("content-type", "application/json").body(body);
        assert_eq!(request.send().await.expect("an answer").status(), status, "{body}");
    }
    // Keys that Segment adds to every mapping, and keys that are no fields, cause no remark.
    let mapping = json!({"__segment_internal_sync_mode": "upsert", "batch_size": 7});
    let (_, answer) =
        ask(&cohortd, "syncAudience?dry_run", &with(json!({"mapping": mapping}))).await;
    assert!(answer[0]["request"].is_object(), "{answer}");
    assert!(cohortd.stop().0.success());
    assert_eq!(launchdarkly.calls().total, 0);
}

async fn settings_are_checked_with_launchdarkly_at_the_configured_hosts_only() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    installation.set("log.level", "trace");
    let url = launchdarkly.url().to_string();
    installation.set("destinations.production.launchdarkly.client_sdk_url", &url);
    let cohortd = installation.start();
    let missing = |key: &str| format!("The root value is missing the required field '{key}'.");
    let invalid = |status: &str| json!({"ok": false, "error": format!("Credentials are invalid: {status}"), "fields": {}});
    let both = format!("{} {}", missing("apiKey"), missing("clientId"));
    let rows = [
        (json!({"apiKey": SERVICE_TOKEN, "clientId": ENVIRONMENT}), json!({"ok": true})),
        (json!({"apiKey": "api-wrong", "clientId": ENVIRONMENT}), invalid("401 Unauthorized")),
        (json!({"apiKey": SERVICE_TOKEN, "clientId": "nobody"}), invalid("404 Not Found")),
        (
            json!({}),
            json!({"ok": false, "error": both,
                "fields": {"apiKey": missing("apiKey"), "clientId": missing("clientId")}}),
        ),
        (
            json!({"apiKey": "x", "clientId": ""}),
            json!({"ok": false, "error": missing("clientId"), "fields": {"clientId": missing("clientId")}}),
        ),
    ];
    for (settings, expected) in rows {
        assert_eq!(ask(&cohortd, "authenticate", &settings).await, (200, expected), "{settings}");
    }
    assert!(cohortd.stop().0.success());

    // Two destinations at different hosts: neither is asked about an unknown ID.
    let hosts = ["production", "other"].map(|destination| {
        let host = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
        host.set_nonblocking(true).expect("it can be asked without waiting");
        let url = format!("http://{}", host.local_addr().expect("it is bound"));
        for (key, value) in [
            ("segment.shared_secrets", "secret"),
            ("launchdarkly.client_side_id", destination),
            ("launchdarkly.service_token", "token"),
            ("launchdarkly.base_url", &url),
            ("launchdarkly.client_sdk_url", &url),
        ] {
            installation.set(&format!("destinations.{destination}.{key}"), value);
        }
        host
    });
    let cohortd = installation.start();
    let unknown = json!({"apiKey": SERVICE_TOKEN, "clientId": "nobody"});
    let (_, answer) = ask(&cohortd, "authenticate", &unknown).await;
    assert_eq!(answer["ok"], false);
    let error = answer["error"].as_str().expect("text");
    assert!(error.contains("it is unclear which one to ask"), "{error}");
    for host in hosts {
        let nobody = host.accept().expect_err("nobody has come");
        assert_eq!(nobody.kind(), std::io::ErrorKind::WouldBlock);
    }
    let log = cohortd.stop().1.join("\n");
    assert!(!log.contains(SERVICE_TOKEN) && !log.contains("api-wrong"), "{log}");
}

async fn it_stands_behind_the_admin_listeners_door() {
    let launchdarkly = launchdarkly().await;
    let mut installation = Installation::new(&launchdarkly);
    let status = async |cohortd: &Cohortd, method: Method, headers: &[(&str, &str)]| {
        let url = format!("http://{}/actions/syncAudience", cohortd.admin);
        let mut request = client().request(method, url).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.body("{}").send().await.expect("an answer");
        let allowed = answer.headers().get("access-control-allow-origin");
        (answer.status().as_u16(), allowed.map(|origin| origin.to_str().expect("text").to_owned()))
    };
    let page = [("origin", SEGMENT_APP)];
    let preflight = [("origin", SEGMENT_APP), ("access-control-request-method", "POST")];
    let rebound = [("origin", SEGMENT_APP), ("host", "attacker.example")];
    let allowed = || Some(SEGMENT_APP.to_owned());

    let cohortd = installation.start();
    assert_eq!(status(&cohortd, Method::POST, &[]).await, (200, None));
    assert_eq!(status(&cohortd, Method::POST, &page).await, (403, None), "not enabled");
    assert_eq!(status(&cohortd, Method::OPTIONS, &preflight).await, (403, None));
    let url = format!("http://{}/actions/manifest", cohortd.admin);
    let manifest: Value = client().get(url).send().await.expect("one").json().await.expect("JSON");
    assert_eq!(manifest["slug"], "actions-launchdarkly-audiences");
    let public = format!("http://{}/actions/manifest", cohortd.public);
    assert_eq!(client().get(public).send().await.expect("an answer").status(), 404);
    assert!(cohortd.stop().0.success());

    installation.set("admin.segment_app", "true");
    let cohortd = installation.start();
    assert_eq!(status(&cohortd, Method::OPTIONS, &preflight).await, (204, allowed()));
    assert_eq!(status(&cohortd, Method::POST, &page).await, (200, allowed()));
    assert_eq!(status(&cohortd, Method::POST, &rebound).await, (403, allowed()));
    assert!(cohortd.stop().0.success());

    installation.set("admin.tokens", "planted-admin-token");
    let cohortd = installation.start();
    let token = [("authorization", "Bearer planted-admin-token"), ("origin", SEGMENT_APP)];
    assert_eq!(status(&cohortd, Method::OPTIONS, &preflight).await, (204, allowed()));
    assert_eq!(status(&cohortd, Method::POST, &page).await, (401, allowed()));
    assert_eq!(status(&cohortd, Method::POST, &token).await, (200, allowed()));
    assert!(cohortd.stop().0.success());
}

tests![
    what_is_performed_is_recorded_and_told_by_the_courier,
    a_batch_is_a_call_for_each_audience_and_a_failure_for_each_event_without_one,
    a_dry_run_shows_the_calls_and_does_nothing,
    what_cannot_be_performed_is_one_failure_with_its_fields,
    settings_are_checked_with_launchdarkly_at_the_configured_hosts_only,
    it_stands_behind_the_admin_listeners_door,
];
