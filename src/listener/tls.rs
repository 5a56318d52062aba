//! The certificates of a listener, and whose clients it lets in; read again while it serves.
//!
//! Refuses a set of files of which any part is missing or does not fit: the set in force stays.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{self, CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use sha2::{Digest, Sha256};
use x509_cert::der::Decode;

use crate::config;
use crate::domain::time::Timestamp;

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read `{path}`: {source}")]
    Read {
        /// The configured file.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("`{path}` does not hold {expected} in PEM: {source}")]
    Pem {
        /// The configured file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What is wrong.
        source: pki_types::pem::Error,
    },
    /// The certificate and the key are not usable together.
    #[error("the certificate `{certificate}` and the key `{key}` cannot be used: {source}")]
    Pair {
        /// The configured file.
        certificate: PathBuf,
        /// The configured file.
        key: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// A certificate of an authority is not usable.
    #[error("`{path}` holds a certificate that cannot be an authority's: {source}")]
    Authority {
        /// The configured file.
        path: PathBuf,
        /// What is wrong.
        source: rustls::Error,
    },
    /// No client could ever be let in.
    #[error("`{path}` cannot verify clients: {source}")]
    Verifier {
        /// The configured file.
        path: PathBuf,
        /// What is wrong.
        source: VerifierBuilderError,
    },
}

/// The certificates in force, and the files they come from.
#[derive(Debug)]
pub(super) struct Certificates {
    files: config::Tls,
    in_force: ArcSwap<ServerConfig>,
    /// Of the files as they were last looked at, usable or not.
    seen: Mutex<Fingerprint>,
}

type Fingerprint = [u8; 32];

/// The contents of the files, read in one go.
struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<(PathBuf, Vec<u8>)>,
}

impl Certificates {
    pub(super) fn load(files: &config::Tls) -> Result<Self, TlsError> {
        let contents = Contents::read(files)?;
        Ok(Self {
            in_force: ArcSwap::from_pointee(contents.build(files)?),
            seen: Mutex::new(contents.fingerprint()),
            files: files.clone(),
        })
    }

    /// What a new handshake goes by.
    pub(super) fn in_force(&self) -> Arc<ServerConfig> {
        self.in_force.load_full()
    }

    /// Takes the files into force if they changed since they were last looked at; says whether.
    /// A session begun under the old certificates cannot be resumed: the new have their own store.
    pub(super) fn reload(&self) -> Result<bool, TlsError> {
        let contents = Contents::read(&self.files)?;
        let fingerprint = contents.fingerprint();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == fingerprint {
            return Ok(false);
        }
        *seen = fingerprint;
        self.in_force.store(Arc::new(contents.build(&self.files)?));
        Ok(true)
    }
}

impl Contents {
    fn read(files: &config::Tls) -> Result<Self, TlsError> {
        let read =
            |path: &Path| fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source });
        Ok(Self {
            certificate: read(&files.certificate)?,
            key: read(&files.key)?,
            client_ca: match &files.client_ca {
                Some(path) => Some((path.clone(), read(path)?)),
                None => None,
            },
        })
    }

    fn fingerprint(&self) -> Fingerprint {
        let parts = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref().map(|(_, pem)| pem)];
        let mut hash = Sha256::new();
        for part in parts.into_iter().flatten() {
            hash.update(Sha256::digest(part));
        }
        hash.finalize().into()
    }

    fn build(&self, files: &config::Tls) -> Result<ServerConfig, TlsError> {
        let pair = |source| TlsError::Pair {
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            source,
        };
        let chain = certificates(&files.certificate, &self.certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(|source| TlsError::Pem {
            path: files.key.clone(),
            expected: "a private key",
            source,
        })?;
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(pair)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some((path, pem)) => {
                let roots = Arc::new(authorities(path, pem)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider)
                    .build()
                    .map_err(|source| TlsError::Verifier { path: path.clone(), source })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The DNS names and URIs of a certificate (RFC 5280, section 4.2.1.6).
pub(super) fn names(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok(certificate) = webpki::EndEntityCert::try_from(certificate) else { return Vec::new() };
    certificate.valid_dns_names().chain(certificate.valid_uri_names()).map(str::to_owned).collect()
}

/// From when until when a certificate in a file is good, the leaf where there is a chain; none where that cannot be read.
pub fn validity(path: &Path) -> Option<(Timestamp, Timestamp)> {
    let leaf = CertificateDer::from_pem_slice(&fs::read(path).ok()?).ok()?;
    let validity = x509_cert::Certificate::from_der(&leaf).ok()?.tbs_certificate.validity;
    let time = |time: x509_cert::time::Time| {
        Timestamp::from_second(time.to_unix_duration().as_secs().try_into().ok()?).ok()
    };
    Some((time(validity.not_before)?, time(validity.not_after)?))
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |source| TlsError::Pem { path: path.to_owned(), expected: "certificates", source };
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if chain.is_empty() {
        return Err(failed(pki_types::pem::Error::NoItemsFound));
    }
    Ok(chain)
}

fn authorities(path: &Path, pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|source| TlsError::Authority { path: path.to_owned(), source })?;
    }
    Ok(roots)
}
