//! JSON Web Signatures by hand: an attacker is not held to what a library allows.

use anyhow::{Result, anyhow};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

/// What is signed: header and claims.
pub(super) fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| BASE64.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

/// The claims of a token.
pub(super) fn claims_of(token: &str) -> Result<Value> {
    part(token, 1)
}

/// The header of a token.
pub(super) fn header_of(token: &str) -> Result<Value> {
    part(token, 0)
}

fn part(token: &str, at: usize) -> Result<Value> {
    let part = token.split('.').nth(at).ok_or_else(|| anyhow!("no JWT"))?;
    Ok(serde_json::from_slice(&BASE64.decode(part)?)?)
}

/// A P-256 key of one's own.
pub(super) struct P256 {
    kid: String,
    pair: EcdsaKeyPair,
}

impl P256 {
    pub(super) fn new(kid: &str) -> Result<Self> {
        Ok(Self {
            kid: kid.to_owned(),
            pair: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?,
        })
    }

    /// As a key set has it.
    pub(super) fn public(&self) -> Value {
        let (x, y) = self.pair.public_key().as_ref()[1..].split_at(32);
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": self.kid,
            "x": BASE64.encode(x), "y": BASE64.encode(y),
        })
    }

    pub(super) fn sign(&self, claims: &Value) -> Result<String> {
        self.sign_with(
            &json!({"alg": "ES256", "typ": "JWT", "kid": self.kid}),
            claims,
        )
    }

    pub(super) fn sign_with(&self, header: &Value, claims: &Value) -> Result<String> {
        let unsigned = unsigned(header, claims);
        let signature = self.pair.sign(&SystemRandom::new(), unsigned.as_bytes())?;
        Ok(format!("{unsigned}.{}", BASE64.encode(signature)))
    }
}

/// An RSA key that can be given to Keycloak.
pub(super) struct Rsa(RsaKeyPair);

impl Rsa {
    pub(super) fn new() -> Result<Self> {
        Ok(Self(RsaKeyPair::generate(KeySize::Rsa2048)?))
    }

    /// PKCS#8.
    pub(super) fn pem(&self) -> Result<String> {
        let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = self.0.as_der()?;
        let text = BASE64_STANDARD.encode(der.as_ref());
        Ok(format!(
            "-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"
        ))
    }

    /// An RS256 token.
    pub(super) fn sign(&self, kid: &str, claims: &Value) -> Result<String> {
        let unsigned = unsigned(&json!({"alg": "RS256", "typ": "JWT", "kid": kid}), claims);
        let mut signature = vec![0; self.0.public_modulus_len()];
        let random = SystemRandom::new();
        self.0.sign(
            &RSA_PKCS1_SHA256,
            &random,
            unsigned.as_bytes(),
            &mut signature,
        )?;
        Ok(format!("{unsigned}.{}", BASE64.encode(signature)))
    }
}

/// An HS256 token.
pub(super) fn hs256(secret: &[u8], kid: &str, claims: &Value) -> String {
    let unsigned = unsigned(&json!({"alg": "HS256", "typ": "JWT", "kid": kid}), claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let tag = hmac::sign(&key, unsigned.as_bytes());
    format!("{unsigned}.{}", BASE64.encode(tag))
}
