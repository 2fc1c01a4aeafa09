//! Certificates: an authority of a test's own, and whom it vouches for.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use crate::services::write_private;
use crate::token::unique;

/// An authority.
#[derive(Debug)]
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate for `localhost` and 127.0.0.1, in files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// One that nobody knows yet.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // Else all would have one name, and be told apart by their signatures only.
        params.distinguished_name.push(DnType::CommonName, unique());
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        Ok(Self { pem, issuer })
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its certificate in a file of this folder.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path, name: &str) -> Result<PathBuf> {
        let file = folder.join(format!("{name}-ca.pem"));
        std::fs::write(&file, &self.pem)?;
        Ok(file)
    }

    /// A certificate and its key, in PEM.
    ///
    /// # Errors
    /// The system gives no randomness.
    pub fn vouch(&self) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let certificate = CertificateParams::new(names)?.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// The same in files of this folder.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn identity(&self, folder: &Path, name: &str) -> Result<Identity> {
        let (certificate, key) = self.vouch()?;
        let files = Identity {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, certificate)?;
        write_private(&files.key, &key)?;
        Ok(files)
    }
}
