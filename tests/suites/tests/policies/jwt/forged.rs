//! Tokens of Keycloak's realm that Keycloak did not sign.

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64};
use http::Method;
use postern_harness::http::Http;
use postern_harness::token::unique;
use postern_harness::wait_for;
use serde_json::{Value, json};

use super::liar::Liar;
use super::signer::{P256, Rsa, claims_of, header_of, hs256, unsigned};
use super::{SOON, World};

/// A realm's key set, as anybody gets it.
async fn key_set(world: &World) -> Result<Vec<Value>> {
    let issuer = world.keycloak.issuer(world.realm.name());
    let uri = format!("{issuer}/protocol/openid-connect/certs");
    let reply = Http::from_address(None).get(&uri).await?.expect(200)?;
    reply.at("/keys")?.as_array().cloned().context("no list")
}

/// Gives the realm a key of ours, for signing (`rsa`) or encryption (`rsa-enc`). Its kid.
async fn give(world: &World, key: &Rsa, provider: &str) -> Result<String> {
    let name = format!("{provider}-{}", unique());
    let algorithm = if provider == "rsa" {
        "RS256"
    } else {
        "RSA-OAEP"
    };
    let component = json!({
        "name": name,
        "providerId": provider,
        "providerType": "org.keycloak.keys.KeyProvider",
        "config": {
            "priority": ["1"],
            "algorithm": [algorithm],
            "privateKey": [key.pem()?],
        },
    });
    let path = format!("/{}/components", world.realm.name());
    let before = key_set(world).await?;
    let admin = world.keycloak.admin().await?;
    admin
        .call(Method::POST, &path, Some(component))
        .await?
        .expect(201)?;
    let after = key_set(world).await?;
    let new = after
        .iter()
        .find(|key| !before.contains(key))
        .context("no new key")?;
    Ok(new["kid"].as_str().context("no kid")?.to_owned())
}

#[tokio::test]
async fn the_key_for_encryption_signs_nothing() -> Result<()> {
    let world = World::shared().await?;
    let claims = claims_of(&world.token().await?)?;
    let key = Rsa::new()?;
    let kid = give(world, &key, "rsa-enc").await?;
    let published = key_set(world).await?;
    let shown = published
        .iter()
        .find(|key| key["kid"] == json!(kid))
        .unwrap();
    assert_eq!(
        (&shown["use"], &shown["alg"]),
        (&json!("enc"), &json!("RSA-OAEP"))
    );
    world
        .judge(&key.sign(&kid, &claims)?)
        .await?
        .refused(401, "TOKEN_INVALID")?;
    // The same by a key that may sign: it was for no other reason.
    let key = Rsa::new()?;
    let kid = give(world, &key, "rsa").await?;
    let token = key.sign(&kid, &claims)?;
    world.judge(&token).await?.expect(200)?;
    // And one that may sign, under the name of the other.
    world
        .judge(&key.sign("invented", &claims)?)
        .await?
        .refused(401, "TOKEN_INVALID")?;
    Ok(())
}

#[tokio::test]
async fn a_public_key_is_no_secret() -> Result<()> {
    let world = World::shared().await?;
    let token = world.token().await?;
    let (claims, kid) = (claims_of(&token)?, header_of(&token)?["kid"].clone());
    let kid = kid.as_str().context("no kid")?;
    let path = format!("/{}/keys", world.realm.name());
    let keys = world
        .keycloak
        .admin()
        .await?
        .call(Method::GET, &path, None)
        .await?;
    let keys = keys.at("/keys")?;
    let of_kid = |keys: &[Value]| keys.iter().find(|key| key["kid"] == json!(kid)).cloned();
    let der = of_kid(keys.as_array().unwrap()).unwrap()["publicKey"].clone();
    let der = der.as_str().context("no public key")?;
    let jwk = of_kid(&key_set(world).await?).unwrap();
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{der}\n-----END PUBLIC KEY-----");
    for secret in [
        format!("{pem}\n").into_bytes(),
        pem.into_bytes(),
        der.as_bytes().to_vec(),
        BASE64_STANDARD.decode(der)?,
        jwk.to_string().into_bytes(),
        BASE64.decode(jwk["n"].as_str().context("no modulus")?)?,
    ] {
        let forged = hs256(&secret, kid, &claims);
        world.judge(&forged).await?.refused(401, "TOKEN_INVALID")?;
    }
    world.judge(&token).await?.expect(200)?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_no_signature() -> Result<()> {
    let world = World::shared().await?;
    let token = world.token().await?;
    let (claims, header) = (claims_of(&token)?, header_of(&token)?);
    let (_, signature) = token.rsplit_once('.').unwrap();
    for alg in [
        "none", "None", "NONE", "nOnE", "", "HS256", "RS256", "RSA-OAEP",
    ] {
        let mut header = header.clone();
        header["alg"] = json!(alg);
        let unsigned = unsigned(&header, &claims);
        let mut forged = vec![format!("{unsigned}."), unsigned.clone()];
        if alg != "RS256" {
            forged.push(format!("{unsigned}.{signature}"));
        }
        for forged in forged {
            let refused = world.judge(&forged).await?.refused(401, "TOKEN_INVALID");
            refused.with_context(|| format!("alg {alg:?}: {forged}"))?;
        }
    }
    let mut more = claims.clone();
    more["realm_access"] = json!({"roles": ["superadmin"]});
    let forged = format!("{}.{signature}", unsigned(&header, &more));
    world.judge(&forged).await?.refused(401, "TOKEN_INVALID")?;
    Ok(())
}

#[tokio::test]
async fn a_token_brings_no_key_and_no_address_of_one() -> Result<()> {
    let world = World::shared().await?;
    let token = world.token().await?;
    let (claims, kid) = (claims_of(&token)?, header_of(&token)?["kid"].clone());
    let evil = P256::new("evil")?;
    let server = Liar::publishing(&[evil.public()])?;
    let certs = format!("{}/certs", server.url());
    for kid in [kid, json!("evil"), Value::Null] {
        for more in [
            json!({"jwk": evil.public()}),
            json!({"jku": certs}),
            json!({"x5u": certs}),
            json!({"x5c": ["MIIBszCCAVmgAwIBAgIUQ=="]}),
            json!({"jwk": evil.public(), "jku": certs, "x5u": certs}),
            json!({"crit": ["jwk"], "jwk": evil.public()}),
        ] {
            let mut header = json!({"alg": "ES256", "typ": "JWT"});
            let members = header.as_object_mut().unwrap();
            members.extend(more.as_object().unwrap().clone());
            if !kid.is_null() {
                members.insert("kid".into(), kid.clone());
            }
            let forged = evil.sign_with(&header, &claims)?;
            // A name nobody knows is asked for, which takes a moment while others ask.
            let refused = async || {
                let reply = world.judge(&forged).await?;
                reply.refused(401, "TOKEN_INVALID").map(drop)
            };
            wait_for("the refusal", SOON, refused).await?;
        }
    }
    assert_eq!(server.asked(), 0, "nobody went there");
    Ok(())
}
