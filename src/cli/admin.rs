//! How the command line administers a running gate: where, as whom, and what an error means.
//!
//! Refuses a token on the command line, where every process could read it, and never shows one.

pub(super) mod answers;
pub(super) mod moment;

use std::error::Error as _;
use std::path::PathBuf;

use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status, Streaming};

use super::connection::{Place, Transport};
use super::{CliError, origin, read_input};
use crate::document::with_causes;
use crate::proto::v1::license_service_client::LicenseServiceClient;
use crate::proto::v1::{License, ListLicensesRequest, WatchLicensesRequest, WatchLicensesResponse};

/// The variable that may hold the token itself.
const TOKEN: &str = "TOLLGATE_TOKEN";

/// How many licenses are asked for at once: with everything that may stand against them, they fit into
/// one message.
const PAGE: usize = 200;

/// What is known of a call that was not answered.
const REPEAT: &str = "whether it was done is not known, and it may be asked for again";

/// Where a gate is administered, and who does it.
#[derive(Debug, clap::Args)]
pub(super) struct AdminConnection {
    /// The gate's administration listener: `http://HOST:PORT`, `https://HOST:PORT` or `unix:PATH`
    #[arg(long, value_name = "ADDRESS", env = "TOLLGATE_ADMIN", default_value = "http://127.0.0.1:9192")]
    admin: String,
    #[command(flatten)]
    transport: Transport,
    /// A file with the bearer token to show; absent: the token in the variable TOLLGATE_TOKEN, if any
    #[arg(long, value_name = "FILE", env = "TOLLGATE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

impl AdminConnection {
    /// Connects.
    pub(super) async fn open(&self) -> Result<Admin<'_>, CliError> {
        let bearer = self.bearer()?;
        let place = Place { option: "--admin", does: "administers", address: &self.admin };
        let channel = self.transport.open(place).await.map_err(|error| match error {
            CliError::Failed(words) => CliError::Failed(format!(
                "{words}\na gate administers over TCP only where `listeners.administration` has `tokens` or \
                 `operators`, and over the Unix socket of its `unix`"
            )),
            other => other,
        })?;
        Ok(Admin { connection: self, client: LicenseServiceClient::new(channel), bearer })
    }

    /// The token to show, as the header's value.
    fn bearer(&self) -> Result<Option<AsciiMetadataValue>, CliError> {
        let (from, text) = match (&self.token_file, std::env::var_os(TOKEN)) {
            (Some(file), _) => (origin(file), read_input(file)?),
            (None, Some(text)) => (TOKEN.to_owned(), text.to_string_lossy().into_owned()),
            (None, None) => return Ok(None),
        };
        // Without what was meant to be a token, somebody else might act: whoever owns the socket.
        let wrong = || CliError::Input(format!("{from}: a token is one word of printable ASCII characters"));
        let token = text.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let mut bearer: AsciiMetadataValue = format!("Bearer {token}").parse().map_err(|_| wrong())?;
        bearer.set_sensitive(true);
        Ok(Some(bearer))
    }
}

/// A gate that is being administered.
pub(super) struct Admin<'a> {
    connection: &'a AdminConnection,
    pub(super) client: LicenseServiceClient<Channel>,
    bearer: Option<AsciiMetadataValue>,
}

impl Admin<'_> {
    /// A request that says who asks, and is given up in time.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        self.signed(self.connection.transport.request(message))
    }

    /// The request, which says who asks.
    fn signed<T>(&self, mut request: Request<T>) -> Request<T> {
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        request
    }

    /// What a status says, in words.
    pub(super) fn failed(&self, status: &Status) -> CliError {
        let (code, words, address) = (status.code(), status.message(), &self.connection.admin);
        CliError::Failed(match (code, status.source()) {
            (Code::Unauthenticated, _) if self.bearer.is_some() => {
                format!("{code:?}: {words}\nthe token that was shown is not one of them")
            }
            (Code::Unauthenticated, _) => format!(
                "{code:?}: {words}\na token is read from the file of `--token-file`, or from the variable \
                 {TOKEN}; a certificate from `--certificate` and `--key`"
            ),
            (Code::Unavailable | Code::Unknown, Some(cause)) => {
                format!("no gate administers at `{address}`: {}; {REPEAT}", with_causes(cause))
            }
            (Code::Cancelled | Code::DeadlineExceeded, _) => {
                format!("{code:?}: {words}; {REPEAT}")
            }
            (Code::Unimplemented, _) => {
                format!("{code:?}: {words}; is `{address}` the gate's administration listener?")
            }
            _ => format!("{code:?}: {words}"),
        })
    }

    /// The next answer of several; none at their end.
    pub(super) async fn next<T>(&self, answers: &mut Streaming<T>) -> Result<Option<T>, CliError> {
        let timeout = self.connection.transport.timeout();
        let Ok(next) = tokio::time::timeout(timeout.get(), answers.message()).await else {
            return Err(self.silent());
        };
        next.map_err(|status| self.failed(&status))
    }

    fn silent(&self) -> CliError {
        let (address, timeout) = (&self.connection.admin, self.connection.transport.timeout());
        CliError::Failed(format!("`{address}` sent nothing more within {timeout}"))
    }

    /// How targets stand, of this issuer or of all, and every change, without an end.
    pub(super) async fn watch(
        &mut self,
        issuer: String,
    ) -> Result<Streaming<WatchLicensesResponse>, CliError> {
        // With a deadline, it would end there.
        let request = self.signed(Request::new(WatchLicensesRequest { issuer }));
        let timeout = self.connection.transport.timeout();
        match tokio::time::timeout(timeout.get(), self.client.watch_licenses(request)).await {
            Ok(answer) => Ok(answer.map_err(|status| self.failed(&status))?.into_inner()),
            Err(_) => Err(self.silent()),
        }
    }

    /// The registered licenses that are asked for, through all pages; at most `limit` of them.
    pub(super) async fn licenses(
        &mut self,
        mut ask: ListLicensesRequest,
        limit: Option<usize>,
    ) -> Result<Vec<License>, CliError> {
        let mut licenses = Vec::new();
        loop {
            let left = limit.map_or(PAGE, |limit| limit.saturating_sub(licenses.len()));
            ask.page_size = u32::try_from(left.min(PAGE)).unwrap_or_default();
            let request = self.request(ask.clone());
            let answer = self.client.list_licenses(request).await;
            let page = answer.map_err(|status| self.failed(&status))?.into_inner();
            licenses.extend(page.licenses);
            let enough = limit.is_some_and(|limit| licenses.len() >= limit);
            if enough || page.next_page_token.is_empty() {
                return Ok(licenses);
            }
            ask.page_token = page.next_page_token;
        }
    }
}
