//! Tokens through a chain, with keys made by aws-lc and an issuer over real HTTP.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use axum::Router;
use axum::routing::get;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use postern_contract::Code;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Jwt, seconds};
use crate::chain::Chain;
use crate::testkit::{self, Outcome};
use crate::{Flow, Plugin, Registry, Request};

/// A private key with what its issuer publishes of it.
struct Signer {
    kid: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    public: Value,
}

impl Signer {
    fn new(kid: &'static str, algorithm: Algorithm, private: EncodingKey) -> Self {
        let mut public =
            serde_json::to_value(Jwk::from_encoding_key(&private, algorithm).unwrap()).unwrap();
        public["kid"] = kid.into();
        Self {
            kid,
            algorithm,
            private,
            public,
        }
    }

    fn rsa(kid: &'static str) -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
        // As PEM, which tells PKCS#8 from PKCS#1; DER would have to be the latter.
        let pem = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            BASE64_STANDARD.encode(der.as_ref())
        );
        let private = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        Self::new(kid, Algorithm::RS256, private)
    }

    fn p256(kid: &'static str) -> Self {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        Self::new(
            kid,
            Algorithm::ES256,
            EncodingKey::from_ec_der(der.as_ref()),
        )
    }

    fn p384(kid: &'static str) -> Self {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        Self::new(
            kid,
            Algorithm::ES384,
            EncodingKey::from_ec_der(der.as_ref()),
        )
    }

    fn ed25519(kid: &'static str) -> Self {
        let der = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        Self::new(
            kid,
            Algorithm::EdDSA,
            EncodingKey::from_ed_der(der.as_ref()),
        )
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.algorithm, Some(self.kid), claims)
    }

    fn sign_as(&self, algorithm: Algorithm, kid: Option<&str>, claims: &Value) -> String {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(algorithm)
        };
        encode(&header, claims, &self.private).unwrap()
    }
}

/// Making RSA keys takes a while; these serve all tests.
static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("rsa"));
static OTHER: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("other"));

/// An issuer over HTTP, whose key set can be changed.
struct Issuer {
    url: String,
    document: Arc<Mutex<(u16, String)>>,
    fetches: Arc<AtomicUsize>,
}

impl Issuer {
    async fn publishing(keys: &[&Signer]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self {
            url,
            document: Arc::default(),
            fetches: Arc::default(),
        };
        issuer.publish(keys);
        let (document, fetches) = (Arc::clone(&issuer.document), Arc::clone(&issuer.fetches));
        let certs = get(move || {
            fetches.fetch_add(1, Ordering::SeqCst);
            let (status, body) = document.lock().unwrap().clone();
            std::future::ready((axum::http::StatusCode::from_u16(status).unwrap(), body))
        });
        let found =
            json!({"issuer": issuer.url, "jwks_uri": format!("{}/certs", issuer.url)}).to_string();
        let router = Router::new().route("/certs", certs).route(
            "/.well-known/openid-configuration",
            get(move || std::future::ready(found.clone())),
        );
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn publish(&self, keys: &[&Signer]) {
        let keys: Vec<_> = keys.iter().map(|key| key.public.clone()).collect();
        *self.document.lock().unwrap() = (200, json!({ "keys": keys }).to_string());
    }

    fn answer(&self, status: u16, body: impl Into<String>) {
        *self.document.lock().unwrap() = (status, body.into());
    }

    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }

    fn settings(&self) -> Value {
        json!({"issuer": self.url, "jwksUri": format!("{}/certs", self.url), "audiences": ["api"]})
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url, "aud": "api", "sub": "u1", "exp": seconds() + 300})
    }
}

/// Shows whom `jwt` found.
struct Show;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct ShowConfig {}

impl Plugin for Show {
    const NAME: &'static str = "show";
    type Config = ShowConfig;

    async fn on_request(&self, _: &ShowConfig, request: &mut Request<'_>) -> Flow {
        let shown = request
            .facts
            .identity
            .as_ref()
            .map(|who| format!("{who:?}"));
        if let Some(shown) = shown {
            request.set_header("x-identity", shown);
        }
        Flow::Next
    }
}

/// A runner that trusts these issuers, and ends with the test.
struct Runner {
    registry: Registry,
    stop: CancellationToken,
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn runner(issuers: &[Value], fetch: Value) -> Runner {
    let settings = json!({"issuers": issuers, "fetch": fetch});
    let jwt = Jwt::new(serde_json::from_value(settings).unwrap()).unwrap();
    let registry = jwt.register(Registry::new()).with(Show);
    let stop = CancellationToken::new();
    registry.start_tasks(&stop);
    Runner { registry, stop }
}

impl Runner {
    fn trusting(issuer: &Issuer) -> Self {
        runner(&[issuer.settings()], json!({}))
    }

    fn chain(&self, config: &str) -> Chain {
        self.registry
            .chain([("jwt", config), ("show", "{}")])
            .unwrap()
    }

    async fn judge(&self, token: &str) -> Outcome {
        judge(&self.chain("{}"), token).await
    }
}

async fn judge(chain: &Chain, token: &str) -> Outcome {
    let request = testkit::request("GET", "/v1/platform/info");
    request
        .header("Authorization", format!("Bearer {token}"))
        .judge(chain)
        .await
}

fn edit(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn without(mut claims: Value, name: &str) -> Value {
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[tokio::test]
async fn a_token_names_its_caller() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let claims = json!({
        "iss": issuer.url, "aud": ["other", "api"], "sub": "u1", "exp": seconds() + 300, "nbf": seconds(),
        "tenant_id": "tnt_1", "workspace_id": "wks_1", "plan_id": "growth", "azp": "cli", "sid": "s1",
        "scope": "tenants:read  tenants:write", "realm_access": {"roles": ["tenant_admin"]},
    });
    let outcome = Runner::trusting(&issuer).judge(&RSA.sign(&claims)).await;
    let shown = outcome.upstream_header("x-identity").unwrap();
    for part in [
        r#"subject: "u1""#,
        r#"tenant: Some("tnt_1")"#,
        r#"workspace: Some("wks_1")"#,
        r#"plan: Some("growth")"#,
        r#"roles: ["tenant_admin"]"#,
        r#"scopes: ["tenants:read", "tenants:write"]"#,
        r#"session: Some("s1")"#,
        r#"client: Some("cli")"#,
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}

#[tokio::test]
async fn every_kind_of_key_verifies_what_it_may() {
    let (p256, p384, ed) = (
        Signer::p256("p256"),
        Signer::p384("p384"),
        Signer::ed25519("ed"),
    );
    let mut any = Signer::rsa("any");
    any.public.as_object_mut().unwrap().remove("alg");
    let issuer = Issuer::publishing(&[&RSA, &any, &p256, &p384, &ed]).await;
    let runner = Runner::trusting(&issuer);
    for signer in [&*RSA, &any, &p256, &p384, &ed] {
        assert!(
            runner.judge(&signer.sign(&issuer.claims())).await.goes_on(),
            "{}",
            signer.kid
        );
    }
    use Algorithm as A;
    for algorithm in [A::RS384, A::RS512, A::PS256, A::PS384, A::PS512] {
        let sign = |signer: &Signer| signer.sign_as(algorithm, Some(signer.kid), &issuer.claims());
        assert!(runner.judge(&sign(&any)).await.goes_on(), "{algorithm:?}");
        let refused = runner.judge(&sign(&RSA)).await;
        assert_eq!(
            refused.code(),
            Some(Code::TokenInvalid),
            "published for RS256 only: {algorithm:?}"
        );
    }
}

#[tokio::test]
async fn what_is_no_bearer_token() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let chain = runner.chain("{}");
    let request = || testkit::request("GET", "/v1/platform/info");
    let missing = request().judge(&chain).await;
    assert_eq!(
        (missing.status(), missing.code()),
        (Some(401), Some(Code::TokenMissing))
    );
    assert!(
        missing
            .header("www-authenticate")
            .unwrap()
            .starts_with("Bearer error=")
    );

    let good = RSA.sign(&issuer.claims());
    for value in [
        "Basic dTpw",
        "Bearer",
        "Bearer ",
        &good,
        "Bearer a.b",
        "Bearer a.b.c",
        "Bearer \u{e4}",
    ] {
        let refused = request().header("Authorization", value).judge(&chain).await;
        assert_eq!(refused.code(), Some(Code::TokenInvalid), "{value}");
        assert!(
            refused
                .header("www-authenticate")
                .unwrap()
                .contains(r#"error="invalid_token""#)
        );
    }
    let twice = request().header("Authorization", format!("Bearer {good}"));
    let twice = twice
        .header("authorization", format!("Bearer {good}"))
        .judge(&chain)
        .await;
    assert_eq!(twice.code(), Some(Code::TokenInvalid));
    let long = format!("Bearer {}", "x".repeat(9_000));
    let long = request().header("Authorization", long).judge(&chain).await;
    assert!(long.message().unwrap().contains("8 KiB"));
    let lower = request()
        .header("Authorization", format!("bearer  {good} "))
        .judge(&chain)
        .await;
    assert!(lower.goes_on(), "{lower}");
}

#[tokio::test]
async fn public_routes_ask_for_nothing_and_read_nothing() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let request = testkit::request("GET", "/health");
    assert!(request.judge(&runner.chain("{}")).await.goes_on());
    let rubbish = request
        .header("Authorization", "Bearer rubbish")
        .judge(&runner.chain("{}"))
        .await;
    assert!(rubbish.goes_on() && rubbish.upstream_header("x-identity").is_none());
}

#[tokio::test]
async fn claims_that_do_not_hold() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let (good, now) = (issuer.claims(), seconds());
    let with = |name: &str, value: Value| edit(good.clone(), name, value);
    for (claims, expected) in [
        (with("exp", json!(now - 31)), Code::TokenExpired),
        (with("exp", json!(0)), Code::TokenExpired),
        (with("exp", json!("soon")), Code::TokenInvalid),
        (with("exp", json!(-5)), Code::TokenInvalid),
        (without(good.clone(), "exp"), Code::TokenInvalid),
        (with("nbf", json!(now + 60)), Code::TokenInvalid),
        (with("nbf", json!("later")), Code::TokenInvalid),
        (
            with("iss", json!("https://elsewhere.example")),
            Code::TokenInvalid,
        ),
        (with("iss", json!([issuer.url])), Code::TokenInvalid),
        (
            with("iss", json!(format!("{}/", issuer.url))),
            Code::TokenInvalid,
        ),
        (with("aud", json!("another")), Code::TokenInvalid),
        (with("aud", json!([])), Code::TokenInvalid),
        (with("aud", json!({"api": 1})), Code::TokenInvalid),
        (without(good.clone(), "aud"), Code::TokenInvalid),
        (without(good.clone(), "sub"), Code::TokenInvalid),
        (with("sub", json!("")), Code::TokenInvalid),
        (
            with("sub", json!("a\r\nX-Auth-Roles: superadmin")),
            Code::TokenInvalid,
        ),
        // An empty tenant must not make a platform token of it, nor a list.
        (with("tenant_id", json!("")), Code::TokenInvalid),
        (with("tenant_id", json!(["tnt_1"])), Code::TokenInvalid),
        (with("workspace_id", json!("wks_1")), Code::TokenInvalid),
        (
            with("realm_access", json!({"roles": "superadmin"})),
            Code::TokenInvalid,
        ),
        (
            with("realm_access", json!({"roles": [1]})),
            Code::TokenInvalid,
        ),
    ] {
        let outcome = runner.judge(&RSA.sign(&claims)).await;
        assert_eq!(
            (outcome.status(), outcome.code()),
            (Some(401), Some(expected)),
            "{claims}"
        );
    }
    for claims in [
        with("exp", json!(now - 25)),
        with("exp", json!(now as f64 + 100.5)),
        with("nbf", json!(now + 25)),
        with("tenant_id", Value::Null),
        with("realm_access", json!("none")),
    ] {
        assert!(runner.judge(&RSA.sign(&claims)).await.goes_on(), "{claims}");
    }
}

#[tokio::test]
async fn signatures_that_do_not_hold() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let claims = issuer.claims();
    let good = RSA.sign(&claims);
    let (signed, _) = good.rsplit_once('.').unwrap();
    let (header, body) = signed.split_once('.').unwrap();
    let none = encode(&Header::default(), &claims, &EncodingKey::from_secret(b"x")).unwrap();
    for (what, token) in [
        (
            "signed by another under its name",
            OTHER.sign_as(Algorithm::RS256, Some("rsa"), &claims),
        ),
        (
            "signed by another without a name",
            OTHER.sign_as(Algorithm::RS256, None, &claims),
        ),
        ("a name nobody has", OTHER.sign(&claims)),
        ("symmetric", none),
        ("no signature", format!("{signed}.")),
        (
            "others' claims",
            format!(
                "{header}.{}.{}",
                &OTHER
                    .sign(&edit(claims.clone(), "sub", json!("root")))
                    .split('.')
                    .nth(1)
                    .unwrap(),
                good.rsplit_once('.').unwrap().1
            ),
        ),
        ("four parts", format!("{good}.x")),
        ("alg none", format!("eyJhbGciOiJub25lIn0.{body}.")),
    ] {
        assert_eq!(
            runner.judge(&token).await.code(),
            Some(Code::TokenInvalid),
            "{what}"
        );
    }
    assert!(
        runner
            .judge(&RSA.sign_as(Algorithm::RS256, None, &claims))
            .await
            .goes_on(),
        "one key needs no name"
    );
    let critical = Header {
        crit: Some(vec!["b64".into()]),
        kid: Some("rsa".into()),
        ..Header::new(Algorithm::RS256)
    };
    let critical = encode(&critical, &claims, &RSA.private).unwrap();
    assert_eq!(
        runner.judge(&critical).await.code(),
        Some(Code::TokenInvalid)
    );
}

#[tokio::test]
async fn keys_for_other_uses_are_passed_over() {
    let mut encryption = Signer::rsa("enc");
    encryption.public["use"] = "enc".into();
    let mut wrapping = Signer::p256("wrap");
    wrapping.public["key_ops"] = json!(["wrapKey"]);
    let issuer = Issuer::publishing(&[&RSA, &encryption, &wrapping]).await;
    let mut document: Value = serde_json::from_str(&issuer.document.lock().unwrap().1).unwrap();
    let keys = document["keys"].as_array_mut().unwrap();
    keys.push(json!({"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"}));
    keys.push(json!({"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}));
    keys.push(json!("no key at all"));
    issuer.answer(200, document.to_string());
    let runner = Runner::trusting(&issuer);
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    for signer in [&encryption, &wrapping] {
        assert_eq!(
            runner.judge(&signer.sign(&issuer.claims())).await.code(),
            Some(Code::TokenInvalid)
        );
    }
    let header = Header {
        kid: Some("oct".into()),
        ..Header::new(Algorithm::HS256)
    };
    let symmetric = encode(
        &header,
        &issuer.claims(),
        &EncodingKey::from_secret(b"secret"),
    )
    .unwrap();
    assert_eq!(
        runner.judge(&symmetric).await.code(),
        Some(Code::TokenInvalid)
    );
}

#[tokio::test]
async fn issuers_never_vouch_for_each_other() {
    let (one, two) = (
        Issuer::publishing(&[&RSA]).await,
        Issuer::publishing(&[&OTHER]).await,
    );
    let runner = runner(&[one.settings(), two.settings()], json!({}));
    assert!(runner.judge(&RSA.sign(&one.claims())).await.goes_on());
    assert!(runner.judge(&OTHER.sign(&two.claims())).await.goes_on());
    let crossed = runner
        .judge(&OTHER.sign_as(Algorithm::RS256, Some("rsa"), &one.claims()))
        .await;
    assert_eq!(crossed.code(), Some(Code::TokenInvalid));
    let crossed = runner.judge(&OTHER.sign(&one.claims())).await;
    assert_eq!(crossed.code(), Some(Code::TokenInvalid));

    let only_one = runner.chain(&json!({"issuers": [one.url]}).to_string());
    assert!(judge(&only_one, &RSA.sign(&one.claims())).await.goes_on());
    assert_eq!(
        judge(&only_one, &OTHER.sign(&two.claims())).await.code(),
        Some(Code::TokenInvalid)
    );
}

#[tokio::test]
async fn a_route_may_ask_for_another_audience() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let (usual, special) = (
        runner.chain("{}"),
        runner.chain(r#"{"audiences": ["special"]}"#),
    );
    let token = RSA.sign(&issuer.claims());
    let for_special = RSA.sign(&edit(issuer.claims(), "aud", json!("special")));
    // Twice: the second time both tokens are remembered.
    for _ in 0..2 {
        assert!(judge(&usual, &token).await.goes_on());
        assert_eq!(
            judge(&special, &token).await.code(),
            Some(Code::TokenInvalid)
        );
        assert!(judge(&special, &for_special).await.goes_on());
        assert_eq!(
            judge(&usual, &for_special).await.code(),
            Some(Code::TokenInvalid)
        );
    }
}

#[tokio::test]
async fn a_remembered_token_ends_with_its_time() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let token = RSA.sign(&edit(issuer.claims(), "exp", json!(seconds() - 29)));
    assert!(runner.judge(&token).await.goes_on());
    let ended = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            let outcome = runner.judge(&token).await;
            if !outcome.goes_on() {
                return outcome;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    assert_eq!(ended.await.unwrap().code(), Some(Code::TokenExpired));
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 0}));
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    issuer.publish(&[&RSA, &OTHER]);
    assert!(runner.judge(&OTHER.sign(&issuer.claims())).await.goes_on());
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
}

#[tokio::test]
async fn a_key_that_is_withdrawn_verifies_nothing_more() {
    let issuer = Issuer::publishing(&[&RSA, &OTHER]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 0}));
    let token = RSA.sign(&issuer.claims());
    assert!(runner.judge(&token).await.goes_on());
    issuer.publish(&[&OTHER]);
    // Any unknown name has the set fetched anew.
    let unknown = OTHER.sign_as(Algorithm::RS256, Some("unknown"), &issuer.claims());
    assert!(!runner.judge(&unknown).await.goes_on());
    assert_eq!(
        runner.judge(&token).await.code(),
        Some(Code::TokenInvalid),
        "remembered, and yet"
    );
}

#[tokio::test]
async fn invented_key_names_cost_the_issuer_one_fetch() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 60_000}));
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    let before = issuer.fetches();
    for name in ["a", "b", "c"] {
        let token = OTHER.sign_as(Algorithm::RS256, Some(name), &issuer.claims());
        assert_eq!(runner.judge(&token).await.code(), Some(Code::TokenInvalid));
    }
    assert_eq!(issuer.fetches(), before, "one was made just before");
}

#[tokio::test]
async fn many_who_ask_at_once_share_one_fetch() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"unknownKeyMs": 0}));
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    let before = issuer.fetches();
    issuer.publish(&[&RSA, &OTHER]);
    let chain = Arc::new(runner.chain("{}"));
    let mut asking = JoinSet::new();
    for n in 0..20 {
        let (chain, token) = (
            Arc::clone(&chain),
            OTHER.sign(&edit(issuer.claims(), "jti", json!(n))),
        );
        asking.spawn(async move { judge(&chain, &token).await });
    }
    assert!(asking.join_all().await.iter().all(Outcome::goes_on));
    assert_eq!(issuer.fetches(), before + 1);
}

#[tokio::test]
async fn without_any_key_the_answer_is_retry_and_soon() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    issuer.answer(500, "out of order");
    let runner = Runner::trusting(&issuer);
    let token = RSA.sign(&issuer.claims());
    let started = std::time::Instant::now();
    let refused = runner.judge(&token).await;
    assert_eq!(
        (refused.status(), refused.code()),
        (Some(503), Some(Code::BackendUnavailable))
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(runner.registry.unready().len(), 1);
    issuer.publish(&[&RSA]);
    let well = tokio::time::timeout(Duration::from_secs(10), async {
        while !runner.judge(&token).await.goes_on() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(
        well.await.is_ok(),
        "it is tried again without anybody asking"
    );
    assert!(runner.registry.unready().is_empty());
}

#[tokio::test]
async fn the_last_good_keys_stay() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(
        &[issuer.settings()],
        json!({"unknownKeyMs": 0, "waitMs": 2000}),
    );
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    let endless = format!(
        "{{\"keys\": [], \"padding\": \"{}\"}}",
        "x".repeat(300 << 10)
    );
    for (status, body) in [
        (500, "{}"),
        (200, "<html>"),
        (200, r#"{"keys": []}"#),
        (200, &endless),
    ] {
        issuer.answer(status, body);
        let before = issuer.fetches();
        assert_eq!(
            runner.judge(&OTHER.sign(&issuer.claims())).await.code(),
            Some(Code::TokenInvalid)
        );
        assert!(issuer.fetches() > before, "it was fetched");
        let fresh = RSA.sign(&edit(issuer.claims(), "jti", json!(before)));
        assert!(
            runner.judge(&fresh).await.goes_on(),
            "after {status} {}",
            body.len()
        );
    }
}

#[tokio::test]
async fn keys_are_discovered_and_only_the_issuers_own() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let found = runner(
        &[json!({"issuer": issuer.url, "audiences": ["api"]})],
        json!({}),
    );
    assert!(found.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    // The document is of `url`, the settings say `url/`.
    let slash = format!("{}/", issuer.url);
    let other = runner(&[json!({"issuer": slash, "audiences": ["api"]})], json!({}));
    let token = RSA.sign(&edit(issuer.claims(), "iss", json!(slash)));
    assert_eq!(
        other.judge(&token).await.code(),
        Some(Code::BackendUnavailable)
    );
}

#[tokio::test]
async fn claim_names_and_algorithms_are_settings() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let mut settings = issuer.settings();
    settings["claims"] =
        json!({"tenant": "https://x.example/tenant", "roles": "groups", "scopes": "scp"});
    settings["algorithms"] = json!(["RS256"]);
    let runner = runner(&[settings.clone()], json!({}));
    let mut claims = issuer.claims();
    claims["https://x.example/tenant"] = json!("tnt_9");
    claims["groups"] = json!(["tenant_admin"]);
    claims["scp"] = json!(["a", "b"]);
    let outcome = runner.judge(&RSA.sign(&claims)).await;
    let shown = outcome.upstream_header("x-identity").unwrap();
    assert!(
        shown.contains(r#"tenant: Some("tnt_9")"#) && shown.contains(r#"scopes: ["a", "b"]"#),
        "{shown}"
    );

    settings["algorithms"] = json!(["ES256"]);
    let no_rsa = self::runner(&[settings], json!({}));
    assert_eq!(
        no_rsa.judge(&RSA.sign(&claims)).await.code(),
        Some(Code::BackendUnavailable),
        "no usable key"
    );
}

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
    ] {
        let error = Jwt::new(serde_json::from_value(settings).unwrap())
            .err()
            .unwrap();
        assert!(error.to_string().contains(field), "{error}");
    }
    for symmetric in ["HS256", "none"] {
        let settings = json!({"issuers": [issuer(json!({"algorithms": [symmetric]}))]});
        assert!(serde_json::from_value::<super::JwtSettings>(settings).is_err());
    }
    let closed = Registry::new().with(Jwt::new(super::JwtSettings::default()).unwrap());
    assert!(closed.chain([("jwt", "{}")]).is_err(), "nobody is trusted");
}
