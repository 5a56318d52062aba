//! `tollgate health`: whether gates decide, and what they wait for.
//!
//! Refuses to say that all is well where one does not answer.

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use super::{CliError, block_on, output};
use crate::document::with_causes;

/// A gate that takes longer is as good as none.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any gate says.
const LARGEST: usize = 1 << 20;

/// Ask gates whether they decide
///
/// Asks the HTTP listener of each. Exits 0 where all decide, 1 where one does not yet, and says what it waits for; 2 where
/// one does not answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate health http://127.0.0.1:9193")]
pub(super) struct Args {
    /// Where each listens
    #[arg(value_name = "URL", default_value = "http://127.0.0.1:9193")]
    gates: Vec<Uri>,
    /// Write what they say as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let said = block_on(async {
        let mut said = Vec::new();
        for gate in &args.gates {
            let answer = tokio::time::timeout(PATIENCE, ask(gate)).await;
            let late = || CliError::Failed(format!("{gate}: no answer within {} s", PATIENCE.as_secs()));
            said.push((gate, answer.unwrap_or_else(|_| Err(late()))?));
        }
        Ok(said)
    })?;
    if args.json {
        output::json(
            &said.iter().map(|(gate, said)| json!({"gate": gate.to_string(), "health": said})).collect(),
        );
    } else {
        let row = |gate: &Uri, part: &Value| {
            let text = |name: &str| part[name].as_str().unwrap_or_default().replace('_', " ");
            vec![gate.to_string(), text("name"), text("state"), text("detail")]
        };
        let parts = |said: &Value| said["parts"].as_array().cloned().unwrap_or_default();
        let rows = said
            .iter()
            .flat_map(|(gate, said)| parts(said).iter().map(|part| row(gate, part)).collect::<Vec<_>>());
        output::table(&["GATE", "PART", "STATE", "DETAIL"], rows);
    }
    let all_ready = said.iter().all(|(_, said)| said["ready"] == true);
    Ok(if all_ready { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// What the gate says of itself.
async fn ask(gate: &Uri) -> Result<Value, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Failed(format!("{gate}: {error}"));
    let broken = |error: &dyn std::error::Error| failed(&with_causes(error));
    let Some(authority) = gate.authority().filter(|_| gate.scheme_str() == Some("http")) else {
        return Err(CliError::Input(format!("`{gate}` is no URL such as `http://127.0.0.1:9193`")));
    };
    let at = Uri::builder().scheme("http").authority(authority.as_str()).path_and_query("/readyz").build();
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let answer = client.get(at.map_err(|error| broken(&error))?).await.map_err(|error| broken(&error))?;
    let body = Limited::new(answer.into_body(), LARGEST).collect().await.map_err(|error| broken(&*error))?;
    let said: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    if said.get("ready").is_some_and(Value::is_boolean) {
        Ok(said)
    } else {
        Err(failed(&"this is no gate's HTTP listener"))
    }
}
