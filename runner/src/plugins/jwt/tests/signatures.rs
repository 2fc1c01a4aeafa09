//! Who may sign, with what.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use postern_contract::Code;
use serde_json::json;

use super::{Issuer, OTHER, RSA, Runner, Signer, edit, runner};
use crate::testkit::Outcome;

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
    let mut document = issuer.document();
    let keys = document["keys"].as_array_mut().unwrap();
    keys.push(json!({"kty": "oct", "k": "c2VjcmV0", "kid": "oct", "alg": "HS256"}));
    keys.push(json!({"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"}));
    keys.push(json!("no key at all"));
    issuer.answer(200, document.to_string());
    let runner = Runner::trusting(&issuer);
    assert!(runner.judge(&RSA.sign(&issuer.claims())).await.goes_on());
    let before = issuer.fetches();
    for signer in [&encryption, &wrapping] {
        assert_eq!(
            runner.judge(&signer.sign(&issuer.claims())).await.code(),
            Some(Code::TokenInvalid)
        );
    }
    assert_eq!(
        issuer.fetches(),
        before,
        "the keys are known, and what they are for"
    );
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
async fn a_token_brings_no_keys_of_its_own() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = runner(&[issuer.settings()], json!({"waitMs": 0}));
    let evil = Issuer::publishing(&[&OTHER]).await;
    for kid in [Some("rsa"), Some("other"), None] {
        let header = Header {
            kid: kid.map(str::to_owned),
            jwk: serde_json::from_value(OTHER.public.clone()).unwrap(),
            jku: Some(format!("{}/certs", evil.url)),
            x5u: Some(format!("{}/certs", evil.url)),
            x5c: Some(vec!["MIIB".into()]),
            ..Header::new(Algorithm::RS256)
        };
        let token = encode(&header, &issuer.claims(), &OTHER.private).unwrap();
        assert!(!runner.judge(&token).await.goes_on(), "{kid:?}");
    }
    assert_eq!(evil.fetches(), 0);
    let header = Header {
        kid: Some("rsa".into()),
        jku: Some(format!("{}/certs", evil.url)),
        ..Header::new(Algorithm::RS256)
    };
    let good = encode(&header, &issuer.claims(), &RSA.private).unwrap();
    assert!(runner.becomes(&good, Outcome::goes_on).await.goes_on());
    assert_eq!(evil.fetches(), 0);
}

#[tokio::test]
async fn a_public_key_is_no_secret() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    let modulus = BASE64.decode(RSA.public["n"].as_str().unwrap()).unwrap();
    let texts = [RSA.public.to_string().into_bytes(), modulus];
    for algorithm in [Algorithm::HS256, Algorithm::HS384, Algorithm::HS512] {
        for secret in &texts {
            let header = Header {
                kid: Some("rsa".into()),
                ..Header::new(algorithm)
            };
            let key = EncodingKey::from_secret(secret);
            let token = encode(&header, &issuer.claims(), &key).unwrap();
            assert_eq!(runner.judge(&token).await.code(), Some(Code::TokenInvalid));
        }
    }
}

#[tokio::test]
async fn only_access_tokens_by_their_header() {
    let issuer = Issuer::publishing(&[&RSA]).await;
    let runner = Runner::trusting(&issuer);
    for (typ, taken) in [
        (None, true),
        (Some("JWT"), true),
        (Some("jwt"), true),
        (Some("at+jwt"), true),
        (Some("application/at+JWT"), true),
        (Some("dpop+jwt"), false),
        (Some("logout+jwt"), false),
        (Some(""), false),
    ] {
        let header = Header {
            typ: typ.map(str::to_owned),
            kid: Some("rsa".into()),
            ..Header::new(Algorithm::RS256)
        };
        let token = encode(&header, &issuer.claims(), &RSA.private).unwrap();
        assert_eq!(runner.judge(&token).await.goes_on(), taken, "{typ:?}");
    }
    let header = Header {
        kid: Some("k".repeat(300)),
        ..Header::new(Algorithm::RS256)
    };
    let long = encode(&header, &issuer.claims(), &RSA.private).unwrap();
    assert_eq!(runner.judge(&long).await.code(), Some(Code::TokenInvalid));
}
