//! Settings that cannot be.

use serde_json::{Value, json};

use super::super::{Jwt, JwtSettings};
use crate::Registry;

#[test]
fn settings_that_cannot_be_are_named() {
    let issuer = |edit: Value| {
        let mut issuer = json!({"issuer": "https://a.example", "audiences": ["api"]});
        issuer
            .as_object_mut()
            .unwrap()
            .extend(edit.as_object().unwrap().clone());
        issuer
    };
    for (settings, field) in [
        (
            json!({"issuers": [issuer(json!({})), issuer(json!({}))]}),
            "issuers[0].issuer",
        ),
        (
            json!({"issuers": [issuer(json!({"audiences": []}))]}),
            "issuers[0].audiences",
        ),
        (
            json!({"issuers": [issuer(json!({"issuer": "a.example"}))]}),
            "issuers[0].issuer",
        ),
        (
            json!({"issuers": [issuer(json!({"jwksUri": "file:///etc/passwd"}))]}),
            "issuers[0].jwksUri",
        ),
        (json!({"leewaySeconds": 9000}), "leewaySeconds"),
        (json!({"maxIssuers": 0}), "maxIssuers"),
        (
            json!({"fetch": {"refreshSeconds": 0}}),
            "fetch.refreshSeconds",
        ),
        (
            json!({"fetch": {"refreshSeconds": 10}}),
            "fetch.minRefreshSeconds",
        ),
        (json!({"fetch": {"keepSeconds": 10}}), "fetch.keepSeconds"),
        (json!({"fetch": {"waitMs": 60000}}), "fetch.waitMs"),
        (
            json!({"issuers": [issuer(json!({"clients": []}))]}),
            "issuers[0].clients",
        ),
        (
            json!({"issuers": [issuer(json!({"types": []}))]}),
            "issuers[0].types",
        ),
        (
            json!({"issuers": [issuer(json!({"allow": ["*"]}))]}),
            "issuers[0].allow",
        ),
        (
            json!({"issuers": [issuer(json!({"issuer": "https://a.example/{slug}"}))]}),
            "issuers[0].allow",
        ),
        (
            json!({"issuers": [issuer(json!({"issuer": "https://a.example/{slug}", "allow": ["A"]}))]}),
            "issuers[0].allow",
        ),
        (
            json!({"issuers": [issuer(json!({"issuer": "https://{slug}.example/", "allow": ["*"]}))]}),
            "issuers[0].issuer",
        ),
        (
            json!({"issuers": [issuer(json!({
                "issuer": "https://a.example/{slug}", "allow": ["*"], "jwksUri": "https://a.example/certs",
            }))]}),
            "issuers[0].jwksUri",
        ),
        (
            json!({"issuers": [issuer(json!({"introspection": {
                "uri": "nowhere", "clientId": "c", "clientSecretFile": "/dev/null",
            }}))]}),
            "issuers[0].introspection.uri",
        ),
        (
            json!({"issuers": [issuer(json!({"introspection": {
                "uri": "https://a.example", "clientId": "c", "clientSecretFile": "/nonexistent",
            }}))]}),
            "issuers[0].introspection.clientSecretFile",
        ),
    ] {
        let error = Jwt::new(serde_json::from_value(settings).unwrap())
            .err()
            .unwrap();
        assert!(error.to_string().contains(field), "{error}");
    }
    for symmetric in ["HS256", "none"] {
        let settings = json!({"issuers": [issuer(json!({"algorithms": [symmetric]}))]});
        assert!(serde_json::from_value::<JwtSettings>(settings).is_err());
    }
    let closed = Registry::new().with(Jwt::new(JwtSettings::default()).unwrap());
    assert!(closed.chain([("jwt", "{}")]).is_err(), "nobody is trusted");
}
