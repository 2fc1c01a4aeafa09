//! The issuer's keys: one of each kind a token may be signed with.
//!
//! They are made on the first start and kept as PEM files (PKCS#8, mode 0600),
//! so that tokens stay valid over a restart. Account tokens are signed with
//! `rsa`; the others are there for tests that mint tokens of other algorithms.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey};

/// Kind of a key: the file's stem, the `kid`, and what it may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// RSA, published for RS256 only, as Keycloak does.
    Rsa,
    /// RSA, published without an algorithm: good for RS* and PS*.
    RsaAny,
    P256,
    P384,
    Ed25519,
    /// RSA that is never published: its tokens are forgeries.
    Foreign,
}

impl Kind {
    const ALL: [Self; 6] = [
        Self::Rsa,
        Self::RsaAny,
        Self::P256,
        Self::P384,
        Self::Ed25519,
        Self::Foreign,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Rsa => "rsa",
            Self::RsaAny => "rsa-any",
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Ed25519 => "ed25519",
            Self::Foreign => "foreign",
        }
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::Rsa | Self::RsaAny | Self::Foreign => Algorithm::RS256,
            Self::P256 => Algorithm::ES256,
            Self::P384 => Algorithm::ES384,
            Self::Ed25519 => Algorithm::EdDSA,
        }
    }

    /// A new private key in PKCS#8.
    fn generate(self) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        let der = match self {
            Self::Rsa | Self::RsaAny | Self::Foreign => {
                let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
                pair.as_der()?.as_ref().to_vec()
            }
            Self::P256 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?
                .as_ref()
                .to_vec(),
            Self::P384 => EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, &random)?
                .as_ref()
                .to_vec(),
            Self::Ed25519 => Ed25519KeyPair::generate_pkcs8v1(&random)?.as_ref().to_vec(),
        };
        Ok(der)
    }

    fn parse(self, pem: &[u8]) -> Result<EncodingKey> {
        Ok(match self {
            Self::Rsa | Self::RsaAny | Self::Foreign => EncodingKey::from_rsa_pem(pem)?,
            Self::P256 | Self::P384 => EncodingKey::from_ec_pem(pem)?,
            Self::Ed25519 => EncodingKey::from_ed_pem(pem)?,
        })
    }
}

/// All keys of the issuer.
pub(super) struct Keys {
    signing: BTreeMap<&'static str, EncodingKey>,
    public: JwkSet,
}

/// `kid` of the key that signs account tokens.
pub(super) const DEFAULT: &str = "rsa";

impl Keys {
    /// Reads `folder`, making it and what is missing in it.
    pub(super) fn load_or_generate(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot make the key folder {}", folder.display()))?;
        let mut signing = BTreeMap::new();
        let mut keys = Vec::new();
        for kind in Kind::ALL {
            let path = folder.join(format!("{}.pem", kind.name()));
            let pem = match std::fs::read(&path) {
                Ok(pem) => pem,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                    let pem = pem_of(&kind.generate()?);
                    write_new(&path, &pem)?;
                    pem
                }
                Err(error) => bail!("cannot read the key {}: {error}", path.display()),
            };
            let key = kind
                .parse(&pem)
                .with_context(|| format!("{} is not a key of its kind", path.display()))?;
            if kind != Kind::Foreign {
                keys.push(published(kind, &key)?);
            }
            signing.insert(kind.name(), key);
        }
        Ok(Self {
            signing,
            public: JwkSet { keys },
        })
    }

    /// The private key named `kid`.
    pub(super) fn signing(&self, kid: &str) -> Option<&EncodingKey> {
        self.signing.get(kid)
    }

    /// What `/certs` answers.
    pub(super) fn public(&self) -> &JwkSet {
        &self.public
    }
}

fn published(kind: Kind, key: &EncodingKey) -> Result<Jwk> {
    let mut jwk = Jwk::from_encoding_key(key, kind.algorithm())?;
    jwk.common.key_id = Some(kind.name().to_owned());
    jwk.common.public_key_use = Some(PublicKeyUse::Signature);
    if kind == Kind::RsaAny {
        jwk.common.key_algorithm = None;
    }
    Ok(jwk)
}

fn pem_of(der: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(der);
    let mut pem = b"-----BEGIN PRIVATE KEY-----\n".to_vec();
    for line in text.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(b"-----END PRIVATE KEY-----\n");
    pem
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(bytes))
        .with_context(|| format!("cannot write the key {}", path.display()))
}
