//! Prepared configurations and the tokens that stand for them.

use postern_runner::testkit::request;
use postern_wire::ErrorCode;
use postern_wire::message::Message;

use super::{error_code, gateway_with, header, prepared, stop, unchanged};

#[tokio::test]
async fn a_bad_configuration_closes_its_route_and_no_other() {
    let mut gateway = gateway_with("");
    for conf in [
        [("puppet", r#"{"do":"dance"}"#)].as_slice(),
        &[("puppet", "{")],
        &[("puppet", r#"{"do":"nothing"} more"#)],
        &[("puppett", "{}")],
        &[
            ("puppet", r#"{"do":"nothing"}"#),
            ("puppet", r#"{"do":"stop","status":"x"}"#),
        ],
    ] {
        let token = gateway.prepare("route#r#p#1", conf).await.unwrap();
        assert_ne!(token, 0);
        let call = request("GET", "/").header("X-Correlation-Id", "corr-abc-123");
        let stop = stop(gateway.call(token, &call).await.unwrap());
        assert_eq!(
            (stop.status, error_code(&stop).as_str()),
            (500, "GATEWAY_MISCONFIGURED")
        );
        assert_eq!(
            header(&stop.headers, "x-correlation-id").as_deref(),
            Some("corr-abc-123")
        );
    }
    let fine = gateway
        .prepare("k", &[("puppet", r#"{"do":"nothing"}"#)])
        .await
        .unwrap();
    let answer = gateway.call(fine, &request("GET", "/")).await.unwrap();
    assert_eq!(answer, unchanged());
}

#[tokio::test]
async fn a_conf_above_the_limit_is_a_misconfigured_route() {
    let mut gateway = gateway_with("limits: {confBytes: 100}");
    let long = format!(r#"{{"do":"nothing"}}{}"#, " ".repeat(100));
    let token = gateway.prepare("k", &[("puppet", &long)]).await.unwrap();
    let stop = stop(gateway.call(token, &request("GET", "/")).await.unwrap());
    assert_eq!(error_code(&stop), "GATEWAY_MISCONFIGURED");
}

#[tokio::test]
async fn the_same_conf_has_one_token_under_any_key() {
    let mut gateway = gateway_with("limits: {configurations: 2}");
    let conf = |status: u16| format!(r#"{{"do":"stop","status":{status}}}"#);
    let first = gateway
        .prepare("a", &[("puppet", &conf(400))])
        .await
        .unwrap();
    assert_eq!(
        gateway
            .prepare("b", &[("puppet", &conf(400))])
            .await
            .unwrap(),
        first
    );
    // Beyond the bound the one prepared longest ago is forgotten, and never mistaken.
    let (second, third) = (conf(401), conf(402));
    let second = gateway.prepare("c", &[("puppet", &second)]).await.unwrap();
    let third = gateway.prepare("d", &[("puppet", &third)]).await.unwrap();
    for (token, status) in [(second, 401), (third, 402)] {
        assert_eq!(
            stop(gateway.call(token, &request("GET", "/")).await.unwrap()).status,
            status
        );
    }
    let again = gateway
        .prepare("a", &[("puppet", &conf(400))])
        .await
        .unwrap();
    assert_eq!(again, first);
    assert_eq!(
        stop(gateway.call(first, &request("GET", "/")).await.unwrap()).status,
        400
    );
}

#[tokio::test]
async fn an_unknown_token_is_said_so_and_the_connection_stays() {
    let (mut gateway, token) = prepared(r#"{"do":"nothing"}"#).await;
    for unknown in [0, token.wrapping_add(1)] {
        let answer = gateway.call(unknown, &request("GET", "/")).await.unwrap();
        assert_eq!(answer, Message::Err(ErrorCode::ConfTokenNotFound));
    }
    let answer = gateway.call(token, &request("GET", "/")).await.unwrap();
    assert_eq!(answer, unchanged());
}
