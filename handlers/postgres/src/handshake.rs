//! The client's side of a handshake: whom it takes for the server.

use std::sync::Arc;

use postern_postgres_url::{Mode, Tls};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

/// As the URL's TLS was decided.
pub(crate) fn client(tls: &Tls) -> ClientConfig {
    let provider = Arc::new(aws_lc_rs::default_provider());
    #[expect(clippy::expect_used, reason = "the provider is a fixed one")]
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("aws-lc has both versions");
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(tls.trusted().iter().cloned());
    let lenient = |chain| {
        Arc::new(Lenient {
            chain,
            provider: Arc::clone(&provider),
        })
    };
    match tls.mode() {
        Mode::Disable | Mode::VerifyFull => builder.with_root_certificates(roots),
        Mode::Prefer | Mode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(lenient(None)),
        Mode::VerifyCa => {
            let chain =
                WebPkiServerVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
            #[expect(clippy::expect_used, reason = "what was read holds one")]
            let chain = chain.build().expect("there is a certificate");
            builder
                .dangerous()
                .with_custom_certificate_verifier(lenient(Some(chain)))
        }
    }
    .with_no_client_auth()
}

/// Takes anybody, or with a chain whomever it leads to, whatever the name.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        stapled: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(own, between, name, stapled, now) {
            // It is the last that is looked at.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, own, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        own: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, own, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let known = &self.provider.signature_verification_algorithms;
        known.supported_schemes()
    }
}
