//! The plugin on its own, in a chain with the house's, and over the whole RPC; no
//! gateway is needed.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use postern_example_plugin::MaintenanceWindow;
use postern_runner::testkit::{Gateway, request};
use postern_runner::{Chain, Registry, RunnerConfig};

const CONF: &str = r#"{"from": 1000, "until": 1600, "let": ["GET"]}"#;

fn chain_at(now: fn() -> u64) -> Chain {
    let registry = Registry::new().with(MaintenanceWindow::with_clock(now));
    registry.chain([("maintenance-window", CONF)]).unwrap()
}

#[tokio::test]
async fn before_and_after_everything_passes_untouched() {
    for clock in [|| 999, || 1600] {
        let outcome = request("POST", "/v1/tenants").judge(&chain_at(clock)).await;
        assert!(outcome.goes_on());
        assert_eq!(outcome.upstream_header("X-Maintenance"), None);
    }
}

#[tokio::test]
async fn meanwhile_a_client_is_told_when_to_come_back() {
    let outcome = request("POST", "/v1/tenants")
        .judge(&chain_at(|| 1000))
        .await;
    assert_eq!(outcome.status(), Some(503));
    assert_eq!(outcome.stopped_by(), Some("maintenance-window"));
    assert_eq!(outcome.header("retry-after"), Some("600"));
    assert_eq!(outcome.body(), br#"{"closedFor":600}"#);
}

#[tokio::test]
async fn meanwhile_methods_that_are_let_pass_go_on_with_a_mark() {
    let outcome = request("GET", "/v1/tenants")
        .judge(&chain_at(|| 1599))
        .await;
    assert!(outcome.goes_on());
    assert_eq!(outcome.upstream_header("x-maintenance"), Some("true"));
}

#[test]
fn a_window_that_ends_before_it_begins_is_named() {
    let registry = Registry::new().with(MaintenanceWindow::new());
    let errors = registry
        .chain([("maintenance-window", r#"{"from": 2, "until": 1}"#)])
        .unwrap_err();
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        ["conf[0] (maintenance-window): until: must be after `from`"]
    );
}

#[tokio::test]
async fn it_runs_behind_the_houses_plugins_over_the_whole_rpc() {
    use postern_runner::wire::message::{Action, Message};

    let config = RunnerConfig::default();
    let house = postern_runner::plugins::house(&config).unwrap();
    let registry = house.with(MaintenanceWindow::with_clock(|| 1000));
    let mut gateway = Gateway::serving(registry, &config).unwrap();
    let conf = [("correlation-id", "{}"), ("maintenance-window", CONF)];
    let token = gateway
        .prepare("route#demo#ext-plugin-pre-req#1", &conf)
        .await
        .unwrap();
    let call = request("DELETE", "/v1/tenants/x").header("X-Correlation-Id", "corr-abc-123");
    let answer = gateway.call(token, &call).await.unwrap();
    let Message::HttpReqCallResp {
        action: Some(Action::Stop(stop)),
        ..
    } = answer
    else {
        panic!("no stop but {answer:?}");
    };
    assert_eq!(stop.status, 503);
    // A plugin's own answer carries what the plugins before it found out.
    let id = stop
        .headers
        .iter()
        .find(|header| header.is("X-Correlation-Id"))
        .unwrap();
    assert_eq!(id.value.as_deref(), Some(b"corr-abc-123".as_slice()));
}
