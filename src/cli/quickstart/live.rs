//! What the quickstart shows of licenses that live: a quota that runs out, and a revocation that reaches
//! a stream which is open.

use std::path::Path;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use super::super::check::word;
use super::super::connection::nearby;
use super::super::{CliError, output};
use super::scene::Question;
use crate::domain::{CheckRequest, LicenseRef};
use crate::grpc::convert;
use crate::proto::v1::check_stream_request::Message as Said;
use crate::proto::v1::check_stream_response::Message as Answer;
use crate::proto::v1::decision_service_client::DecisionServiceClient;
use crate::proto::v1::license_service_client::LicenseServiceClient;
use crate::proto::v1::target::Which;
use crate::proto::v1::{
    CheckStreamRequest, CheckStreamResponse, Reason, RevokeLicenseRequest, Target, UsageReport,
};

/// How often the metered license is asked for: once more than it allows in a day.
const ASKED: usize = 4;

type Client = DecisionServiceClient<Channel>;

/// Uses up the quota of a license.
pub(super) async fn run_out(client: &mut Client, metered: &Question) -> Result<(), CliError> {
    output::line("\nA quota runs out: the license `license-metered` allows three reads a day.\n");
    let mut rows = Vec::new();
    for number in 1..=ASKED {
        let answer =
            client.check(convert::ask(question(metered))).await.map_err(CliError::failed)?.into_inner();
        let left = answer.quotas.first().map(|quota| quota.remaining.to_string()).unwrap_or_default();
        rows.push(vec![format!("read {number}"), word(&answer).to_owned(), left, codes(&answer.reasons)]);
    }
    output::table(&["asked", "decision", "left today", "codes"], rows);
    Ok(())
}

/// Opens a stream, revokes its license, and tells how long the stream lived on.
pub(super) async fn revoke(client: &mut Client, streamed: &Question, folder: &Path) -> Result<(), CliError> {
    output::line("\nA revocation reaches an open stream.\n");
    let (said, received) = mpsc::channel(2);
    let say = async |message| {
        let said = said.send(CheckStreamRequest { message: Some(message) }).await;
        said.map_err(CliError::failed)
    };
    say(Said::Open(convert::ask(question(streamed)))).await?;
    let stream = client.check_stream(ReceiverStream::new(received)).await.map_err(CliError::failed)?;
    let mut answers = stream.into_inner();
    let Answer::Opened(opened) = next(&mut answers).await? else { return Err(unexpected()) };
    output::line(&format!("  opened    {}: data may flow", word(&opened)));
    say(Said::Report(UsageReport { usage: [("bytes".to_owned(), 1_000_000.0)].into() })).await?;
    let Answer::Taken(_) = next(&mut answers).await? else { return Err(unexpected()) };
    output::line("  reported  1 MB");
    let admin = format!("unix:{}", folder.join("admin.sock").display());
    let mut admin = LicenseServiceClient::new(nearby(&admin).await?);
    let which = Some(Which::LicenseId("license-streamed".to_owned()));
    let target = Some(Target { issuer: String::new(), which });
    let revoke = RevokeLicenseRequest { target, reason: "the contract ended".to_owned() };
    let begun = Instant::now();
    admin.revoke_license(revoke).await.map_err(CliError::failed)?;
    output::line("  revoked   `license-streamed`, durably");
    let Answer::Ended(ended) = next(&mut answers).await? else { return Err(unexpected()) };
    let elapsed = begun.elapsed().as_millis();
    output::line(&format!("  ended     {}, {elapsed} ms after revoking began", codes(&ended.reasons)));
    Ok(())
}

fn question(of: &Question) -> CheckRequest {
    CheckRequest { license: LicenseRef::Token(of.token.clone()), ..of.request.clone() }
}

fn codes(reasons: &[Reason]) -> String {
    let codes: Vec<&str> = reasons.iter().map(|reason| reason.code.as_str()).collect();
    codes.join(", ")
}

async fn next(answers: &mut Streaming<CheckStreamResponse>) -> Result<Answer, CliError> {
    let answer = answers.message().await.map_err(CliError::failed)?;
    answer.and_then(|answer| answer.message).ok_or_else(unexpected)
}

fn unexpected() -> CliError {
    CliError::Failed("the gate said something else on the stream than was expected".to_owned())
}
