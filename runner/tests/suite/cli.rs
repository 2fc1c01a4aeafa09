//! The command line: what is wrong is said in one line, before anything listens.

use std::path::Path;
use std::process::{Command, Output};

use crate::process::Place;

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern-runner"));
    command
        .env_remove("APISIX_LISTEN_ADDRESS")
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[track_caller]
fn is_one_line(output: &Output, code: i32, part: &str) {
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.starts_with("postern-runner: ") && error.contains(part),
        "{error}"
    );
}

#[test]
fn wrong_usage() {
    is_one_line(&run(&[]), 2, "APISIX_LISTEN_ADDRESS");
    is_one_line(&run(&["--wrong"]), 2, "unexpected argument '--wrong'");
    is_one_line(&run(&["dance"]), 2, "unrecognized subcommand 'dance'");
    is_one_line(
        &run(&["--config", "/nonexistent/x.yaml"]),
        2,
        "cannot read the configuration /nonexistent/x.yaml",
    );
    is_one_line(&run(&["check"]), 2, "required arguments");
    is_one_line(
        &run(&["check", "/nonexistent/apisix.yaml"]),
        2,
        "cannot read /nonexistent/apisix.yaml",
    );
    is_one_line(
        &run(&["schema", "no-such-plugin"]),
        2,
        "no plugin is called \"no-such-plugin\"; there are: ",
    );
    is_one_line(
        &run(&["worker", "--threads", "1"]),
        2,
        "by the runner itself",
    );
}

#[test]
fn what_cannot_be_served_is_said_before_anything_listens() {
    let place = Place::new();
    for (config, part) in [
        ("socket: {mode: \"999\"}", "socket.mode"),
        ("sokket: {}", "unknown field `sokket`"),
        (
            "plugins: {nonsense: {}}",
            "plugins.nonsense: no plugin of this binary",
        ),
        (
            "worker: {user: no-such-user}",
            "worker.user: no user is called \"no-such-user\"",
        ),
        ("admin: {listen: \"192.0.2.1:80\"}", "admin.listen"),
    ] {
        place.configure(config);
        let output = place.command().output().unwrap();
        is_one_line(&output, 2, part);
        assert!(!place.socket().exists(), "{config}");
    }
    let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = somebody.local_addr().unwrap();
    place.configure(&format!("admin: {{listen: \"{taken}\"}}"));
    let output = place.command().output().unwrap();
    is_one_line(
        &output,
        2,
        &format!("admin.listen: cannot listen on {taken}"),
    );
    assert!(!place.socket().exists());
    place.configure("");
    let with = |address: &str| {
        let mut command = place.command();
        command
            .env("APISIX_LISTEN_ADDRESS", address)
            .output()
            .unwrap()
    };
    is_one_line(
        &with("tcp:1"),
        2,
        "APISIX_LISTEN_ADDRESS: \"tcp:1\" is not of the form unix:/path",
    );
    is_one_line(
        &with("unix:/nonexistent/folder/s"),
        2,
        "cannot listen on /nonexistent/folder/s",
    );
    is_one_line(
        &with(&format!("unix:/tmp/{}", "x".repeat(200))),
        2,
        "too long",
    );
    is_one_line(
        &with(&format!("unix:{}", place.config().display())),
        2,
        "is no socket",
    );
    assert!(
        place.config().is_file(),
        "a file in the socket's place is not replaced"
    );
}

#[test]
fn help_teaches() {
    let help = run(&["--help"]);
    assert!(help.status.success());
    let help = text(&help.stdout);
    for part in [
        "ext-plugin:",
        "check apisix.yaml",
        "schema jwt",
        "explain",
        "kill -HUP",
        "Exit codes",
    ] {
        assert!(help.contains(part), "{part:?} is not in\n{help}");
    }
}

#[test]
fn schemas_are_printed() {
    let one = run(&["schema", "correlation-id"]);
    let one: serde_json::Value = serde_json::from_slice(&one.stdout).unwrap();
    assert!(one["properties"]["missing"].is_object(), "{one}");
    let all = run(&["schema"]);
    let all: serde_json::Value = serde_json::from_slice(&all.stdout).unwrap();
    assert_eq!(all["correlation-id"], one);
}

#[test]
fn handlers_keys_are_derived_from_the_master_keys() {
    let place = Place::new();
    let masters = place.config().with_file_name("master.keys");
    std::fs::write(&masters, format!("k1 {}=\n", "A".repeat(43))).unwrap();
    let masters = masters.to_str().unwrap();
    let of_tenants = text(&run(&["context-keys", masters, "tenants"]).stdout);
    assert!(of_tenants.starts_with("k1 tenants "), "{of_tenants}");
    assert_eq!(of_tenants.lines().count(), 1, "{of_tenants}");
    assert!(!of_tenants.contains("AAAA"), "the master key itself");
    let of_all = text(&run(&["context-keys", masters]).stdout);
    assert!(of_all.contains(&of_tenants) && of_all.contains("k1 storage "));
    is_one_line(&run(&["context-keys", masters, "dance"]), 2, "\"dance\"");
    is_one_line(
        &run(&["context-keys", "/nonexistent/keys"]),
        2,
        "cannot read /nonexistent/keys",
    );
}

const APISIX_YAML: &str = r#"
routes:
  - id: good
    plugins:
      ext-plugin-pre-req:
        conf: [{name: correlation-id, value: '{"missing":"generate"}'}]
  - id: field
    plugins:
      ext-plugin-pre-req:
        conf: [{name: correlation-id, value: '{}'}, {name: correlation-id, value: '{"missing":"x"}'}]
  - id: disabled
    plugins:
      ext-plugin-pre-req: {_meta: {disable: true}, allow_degradation: true, conf: []}
  - id: degraded
    plugins:
      ext-plugin-post-req:
        disable: true # nothing to APISIX
        allow_degradation: true
        conf: [{name: correlation-id, value: '{}'}]
  - plugins:
      ext-plugin-pre-req: {conf: [{name: corelation-id, value: '{}'}, {name: correlation-id, value: {}}]}
services:
  - id: 7
    plugins: {ext-plugin-post-resp: {}}
global_rules:
  - id: g
    plugins: {ext-plugin-pre-req: {conf: []}}
plugin_configs:
  - id: p
    plugins: {ext-plugin-pre-req: {conf: [{name: correlation-id, value: '{'}]}}
consumers:
  - username: jack
    plugins: {ext-plugin-pre-req: {}}
consumer_groups:
  - id: sealed
    plugins: {ext-plugin-pre-req: {conf: [{name: context, value: '{}'}]}}
  - id: headers
    plugins: {ext-plugin-pre-req: {conf: [{name: context, value: '{"mode": "headers"}'}]}}
#END
"#;

#[test]
fn check_lists_every_problem_by_route_and_field() {
    let place = Place::new();
    let file = place.config().with_file_name("apisix.yaml");
    std::fs::write(&file, APISIX_YAML).unwrap();
    let output = check(&file);
    let report = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{report}");
    for problem in [
        "routes[id=field].plugins.ext-plugin-pre-req.conf[1] (correlation-id): missing: unknown variant `x`",
        "routes[id=degraded].plugins.ext-plugin-post-req.allow_degradation: must be false",
        "routes[4].plugins.ext-plugin-pre-req.conf[0] (corelation-id): no plugin has this name",
        "routes[4].plugins.ext-plugin-pre-req.conf[1].value: a text is due",
        "services[id=7].plugins.ext-plugin-post-resp.conf: missing",
        "global_rules[id=g].plugins.ext-plugin-pre-req.conf: a list",
        "plugin_configs[id=p].plugins.ext-plugin-pre-req.conf[0] (correlation-id): EOF while parsing",
        "consumers[0].plugins.ext-plugin-pre-req.conf: missing",
        "consumer_groups[id=sealed].plugins.ext-plugin-pre-req.conf: context without authorize before it",
        ": 10 problems",
    ] {
        assert!(report.contains(problem), "{problem:?} is not in\n{report}");
    }
    for fine in ["id=good", "id=disabled", "id=headers"] {
        assert!(!report.contains(fine), "{report}");
    }
}

#[test]
fn check_of_what_is_fine_says_so() {
    let place = Place::new();
    let file = place.config().with_file_name("apisix.yaml");
    let good = "routes: [{id: a, plugins: {ext-plugin-pre-req: {conf: [{name: correlation-id, value: '{}'}]}}}]";
    std::fs::write(&file, good).unwrap();
    let output = check(&file);
    assert!(output.status.success());
    assert!(text(&output.stdout).contains("1 confs with 1 plugins, all can be served"));
}

/// A claim store that cannot be spoken to as its URL says is a mistake of the file.
#[test]
fn check_tells_of_claims_that_cannot_be_used() {
    let place = Place::new();
    let file = |name: &str| place.config().with_file_name(name);
    std::fs::write(file("apisix.yaml"), "routes: []\n").unwrap();
    let key = "k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    std::fs::write(file("outcome.keys"), key).unwrap();
    let checked = |url: &str| {
        place.configure(&format!(
            "plugins: {{idempotency: {{claims: {{url: \"{url}\"}}, outcomeKeyFile: \"{}\"}}}}",
            file("outcome.keys").display()
        ));
        let mut command = place.command();
        command
            .arg("check")
            .arg(file("apisix.yaml"))
            .output()
            .unwrap()
    };
    for (query, part) in [
        (
            "sslmode=allow",
            "sslmode is disable, prefer, require, verify-ca or verify-full, not \"allow\"",
        ),
        (
            "sslmode=verify-ca",
            "sslmode=verify-ca needs sslrootcert=FILE",
        ),
        (
            "sslmode=require&sslrootcert=system",
            "sslmode=require with sslrootcert=system verifies nothing",
        ),
        (
            "sslmode=verify-full&sslrootcert=/no/such",
            "sslrootcert: cannot read /no/such",
        ),
    ] {
        let output = checked(&format!("postgres://u:hunter2@db.example.com/d?{query}"));
        is_one_line(
            &output,
            2,
            &format!("plugins.idempotency.claims: url: {part}"),
        );
        assert!(!text(&output.stderr).contains("hunter2"));
    }
    let output = checked("postgres://u:hunter2@db.example.com/d?sslmode=require");
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn check_of_what_has_no_routes_says_so() {
    let place = Place::new();
    let file = place.config().with_file_name("apisix.yaml");
    std::fs::write(&file, "ruotes: []\nupstreams: []\n").unwrap();
    let output = check(&file);
    assert_eq!(output.status.code(), Some(1));
    let report = text(&output.stdout);
    assert!(
        report.contains("routes: missing; the file has ruotes, upstreams"),
        "{report}"
    );
}

fn check(file: &Path) -> Output {
    run(&["check", file.to_str().unwrap()])
}

#[test]
fn explain_tells_each_plugins_verdict() {
    let place = Place::new();
    let file = |name: &str, text: &str| {
        let path = place.config().with_file_name(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let conf = file(
        "conf.yaml",
        "[{name: correlation-id, value: '{}'}, {name: no-route, value: {}}]",
    );
    let good = file(
        "good.json",
        r#"{"path":"/nothing","headers":{"x-correlation-id":"corr-abc-123"}}"#,
    );
    let output = run(&["explain", "--conf", &conf, &good]);
    let said = text(&output.stdout);
    assert!(output.status.success(), "{said}{}", text(&output.stderr));
    for part in [
        "correlation-id   next",
        "no-route         stop: 404 ROUTE_NOT_FOUND",
        "The client gets 404 from no-route",
        "corr-abc-123",
    ] {
        assert!(said.contains(part), "{part:?} is not in\n{said}");
    }
    let bare = file("bare.json", r#"{"path":"/nothing"}"#);
    let said = text(&run(&["explain", "--conf", &conf, &bare]).stdout);
    assert!(
        said.contains("correlation-id   stop: 400 CORRELATION_ID_MISSING"),
        "{said}"
    );
    assert!(!said.contains("no-route  "), "{said}");
    let wrong = file("wrong.json", r#"{"path":"/","headers":{"a":1}}"#);
    let output = run(&["explain", "--conf", &conf, &wrong]);
    is_one_line(&output, 2, "headers.a");
}
