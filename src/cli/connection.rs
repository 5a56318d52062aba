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

/// Where decisions are asked for.
#[derive(Debug, clap::Args)]
pub(super) struct Connection {
    /// The gate: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "ADDRESS", default_value = "http://127.0.0.1:9191")]
    gate: String,
    #[command(flatten)]
    transport: Transport,
}

impl Connection {
    /// Connects.
    pub(super) async fn open(&self) -> Result<Channel, CliError> {
        self.transport.open(decisions(&self.gate)).await.map_err(undecided)
    }

    /// A request that is given up in time.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        self.transport.request(message)
    }
}

/// Connects to a gate of our own, in clear text.
pub(super) async fn nearby(gate: &str) -> Result<Channel, CliError> {
    let place = decisions(gate);
    place.connect(place.endpoint()?.connect_timeout(Duration::from_secs(5))).await.map_err(undecided)
}

fn decisions(address: &str) -> Place<'_> {
    Place { option: "--gate", does: "answers", address }
}

/// A gate that cannot be reached has not decided.
fn undecided(error: CliError) -> CliError {
    match error {
        CliError::Failed(words) => CliError::Failed(format!("could not decide: {words}")),
        other => other,
    }
}

/// TLS, and how long to wait: the same for whatever is asked of a gate.
#[derive(Debug, clap::Args)]
pub(super) struct Transport {
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

impl Transport {
    /// Connects.
    pub(super) async fn open(&self, place: Place<'_>) -> Result<Channel, CliError> {
        let Place { option, address, .. } = place;
        let timeout = self.timeout.get();
        // A gate that fell silent is noticed also where an answer may take any time.
        let mut endpoint = place
            .endpoint()?
            .connect_timeout(timeout)
            .http2_keep_alive_interval(timeout)
            .keep_alive_timeout(timeout);
        if address.starts_with("https:") {
            endpoint = endpoint.tls_config(self.tls()?).map_err(CliError::failed)?;
        } else if self.ca.is_some() || self.certificate.is_some() {
            let right = "`--ca`, `--certificate` and `--key` need `https://HOST:PORT`";
            return Err(CliError::Input(format!("`{option} {address}` is not TLS; {right}")));
        }
        // The time to connect does not count the handshake of TLS.
        let connected = tokio::time::timeout(timeout, place.connect(endpoint)).await;
        connected.unwrap_or_else(|_| {
            let timeout = self.timeout;
            Err(CliError::Failed(format!("`{address}` did not answer within {timeout}")))
        })
    }

    /// A request that is given up in time.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout.get());
        request
    }

    /// How long to wait for an answer.
    pub(super) fn timeout(&self) -> HumanDuration {
        self.timeout
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

/// Where something is asked of a gate.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// The option that says so.
    pub(super) option: &'static str,
    /// What a gate does there, for errors.
    pub(super) does: &'static str,
    /// The address itself.
    pub(super) address: &'a str,
}

impl Place<'_> {
    fn endpoint(self) -> Result<Endpoint, CliError> {
        let Self { option, address, .. } = self;
        Endpoint::from_shared(address.to_owned()).map_err(|error| {
            let right = "write `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`";
            CliError::Input(format!("`{option} {address}`: {error}; {right}"))
        })
    }

    async fn connect(self, endpoint: Endpoint) -> Result<Channel, CliError> {
        let Self { does, address, .. } = self;
        endpoint.connect().await.map_err(|error| {
            CliError::Failed(format!("no gate {does} at `{address}`: {}", with_causes(&error)))
        })
    }
}

fn read(file: &Path) -> Result<Vec<u8>, CliError> {
    std::fs::read(file).map_err(|error| CliError::file(file, &error))
}
