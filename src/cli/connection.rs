//! How the command line reaches a running gate: its address, TLS, and how long it waits.
//!
//! Refuses to wait without end, and to take clear text where certificates are named.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tonic::Request;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::CliError;
use crate::config::HumanDuration;
use crate::document::with_causes;

/// Where the gate is.
#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// The gate: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "ADDRESS", default_value = "http://127.0.0.1:9191")]
    gate: String,
    /// The authorities that may vouch for the gate's certificate, PEM; absent: the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The certificate to show to the gate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<PathBuf>,
    /// The private key of the certificate, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// How long to wait for an answer
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    timeout: HumanDuration,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(&self) -> Result<Channel, CliError> {
        let mut endpoint = endpoint(&self.gate)?.connect_timeout(self.timeout.get());
        if self.gate.starts_with("https:") {
            endpoint = endpoint.tls_config(self.tls()?).map_err(CliError::failed)?;
        } else if self.ca.is_some() || self.certificate.is_some() {
            let right = "`--ca`, `--certificate` and `--key` need `https://HOST:PORT`";
            return Err(CliError::Input(format!("`--gate {}` is not TLS; {right}", self.gate)));
        }
        // The time to connect does not count the handshake of TLS.
        let connected = tokio::time::timeout(self.timeout.get(), connect(&self.gate, endpoint)).await;
        connected.unwrap_or_else(|_| {
            let (gate, timeout) = (&self.gate, &self.timeout);
            Err(CliError::Failed(format!("could not decide: `{gate}` did not answer within {timeout}")))
        })
    }

    /// A request that is given up in time.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout.get());
        request
    }

    fn tls(&self) -> Result<ClientTlsConfig, CliError> {
        let tls = match &self.ca {
            Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(file)?)),
            None => ClientTlsConfig::new().with_enabled_roots(),
        };
        Ok(match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => {
                tls.identity(Identity::from_pem(read(certificate)?, read(key)?))
            }
            _ => tls,
        })
    }
}

/// Connects to a gate of our own, in clear text.
pub(super) async fn nearby(gate: &str) -> Result<Channel, CliError> {
    connect(gate, endpoint(gate)?.connect_timeout(Duration::from_secs(5))).await
}

fn endpoint(gate: &str) -> Result<Endpoint, CliError> {
    Endpoint::from_shared(gate.to_owned()).map_err(|error| {
        let right = "write `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`";
        CliError::Input(format!("`--gate {gate}`: {error}; {right}"))
    })
}

async fn connect(gate: &str, endpoint: Endpoint) -> Result<Channel, CliError> {
    endpoint.connect().await.map_err(|error| {
        CliError::Failed(format!("could not decide: no gate answers at `{gate}`: {}", with_causes(&error)))
    })
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file).map_err(|error| CliError::file(file, &error))
}
