//! Keys that sign tokens.

use std::sync::LazyLock;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::Value;

/// A private key with what its issuer publishes of it.
pub(super) struct Signer {
    pub(super) kid: &'static str,
    algorithm: Algorithm,
    pub(super) private: EncodingKey,
    pub(super) public: Value,
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

    pub(super) fn rsa(kid: &'static str) -> Self {
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

    pub(super) fn p256(kid: &'static str) -> Self {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        Self::new(
            kid,
            Algorithm::ES256,
            EncodingKey::from_ec_der(der.as_ref()),
        )
    }

    pub(super) fn p384(kid: &'static str) -> Self {
        let der =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &SystemRandom::new())
                .unwrap();
        Self::new(
            kid,
            Algorithm::ES384,
            EncodingKey::from_ec_der(der.as_ref()),
        )
    }

    pub(super) fn ed25519(kid: &'static str) -> Self {
        let der = Ed25519KeyPair::generate_pkcs8v1(&SystemRandom::new()).unwrap();
        Self::new(
            kid,
            Algorithm::EdDSA,
            EncodingKey::from_ed_der(der.as_ref()),
        )
    }

    pub(super) fn sign(&self, claims: &Value) -> String {
        self.sign_as(self.algorithm, Some(self.kid), claims)
    }

    pub(super) fn sign_as(
        &self,
        algorithm: Algorithm,
        kid: Option<&str>,
        claims: &Value,
    ) -> String {
        let header = Header {
            kid: kid.map(str::to_owned),
            ..Header::new(algorithm)
        };
        encode(&header, claims, &self.private).unwrap()
    }
}

/// Making RSA keys takes a while; these serve all tests.
pub(super) static RSA: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("rsa"));
pub(super) static OTHER: LazyLock<Signer> = LazyLock::new(|| Signer::rsa("other"));
