//! Where a hub is, and how it is connected to: certificates are read again for each connection.
//!
//! Refuses certificates that cannot be used, in words that name the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::Hubs;
use crate::document::with_causes;
use crate::store::StoreError;

/// What may be on its way at once: a page of what changed, before it is asked to wait.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A hub.
pub(super) struct Address {
    /// As it is configured.
    pub(super) name: String,
    endpoint: Endpoint,
    tls: Option<Files>,
}

/// The files of TLS.
struct Files {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

impl Address {
    /// Reads an address, and tries its certificates.
    pub(super) fn read(name: &str, config: &Hubs) -> Result<Self, StoreError> {
        let unusable = |error| StoreError::Unusable(format!("`state.hub.addresses`: `{name}`: {error}"));
        let endpoint = Endpoint::from_shared(name.to_owned()).map_err(unusable)?;
        let endpoint = endpoint
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW);
        let tls = name.starts_with("https:").then(|| Files {
            ca: config.ca.clone(),
            identity: config.certificate.clone().zip(config.key.clone()),
        });
        let address = Self { name: name.to_owned(), endpoint, tls };
        address.secured()?;
        Ok(address)
    }

    /// Connects, within this time.
    pub(super) async fn connect(&self, patience: Duration) -> Result<Channel, StoreError> {
        let endpoint = self.secured()?.connect_timeout(patience);
        // The time to connect does not count the handshake of TLS.
        match tokio::time::timeout(patience, endpoint.connect()).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(self.unavailable(&with_causes(&error))),
            Err(_) => Err(self.unavailable(&format!("no answer within {patience:?}"))),
        }
    }

    /// This hub does not do what it should.
    pub(super) fn unavailable(&self, words: &str) -> StoreError {
        StoreError::Unavailable(format!("hub `{}`: {words}", self.name))
    }

    fn secured(&self) -> Result<Endpoint, StoreError> {
        let Some(files) = &self.tls else { return Ok(self.endpoint.clone()) };
        let tls = match &files.ca {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("ca", file)?)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        let tls = match &files.identity {
            Some((certificate, key)) => {
                tls.identity(Identity::from_pem(read("certificate", certificate)?, read("key", key)?))
            }
            None => tls,
        };
        self.endpoint.clone().tls_config(tls).map_err(|error| {
            let words = with_causes(&error);
            StoreError::Unusable(format!("`state.hub`: its certificates cannot be used: {words}"))
        })
    }
}

fn read(setting: &str, file: &Path) -> Result<Vec<u8>, StoreError> {
    std::fs::read(file).map_err(|error| {
        StoreError::Unusable(format!("`state.hub.{setting}`: cannot read `{}`: {error}", file.display()))
    })
}
