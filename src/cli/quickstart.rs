//! `tollgate quickstart`: keys, a catalog, five licenses and a gate in a fresh folder, and real
//! checks over gRPC. Refuses to touch a folder that is there already.

mod live;
mod scene;

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use tonic::transport::Channel;

use super::check::word;
use super::connection::nearby;
use super::{CliError, block_on, output};
use crate::app::App;
use crate::config::sources;
use crate::domain::{CheckRequest, Clock, LicenseRef};
use crate::grpc::convert;
use crate::proto::v1::decision_service_client::DecisionServiceClient;
use scene::Scene;

/// See it work: keys, licenses, a gate and real checks, in a fresh folder
///
/// Makes a fresh folder with keys, a catalog, five licenses and a configuration, starts a gate on
/// them, asks it seven questions over gRPC, uses up a quota, revokes a license under an open stream,
/// and stays up for more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  tollgate quickstart --once")]
pub(super) struct Args {
    /// Exit after the questions instead of staying up
    #[arg(long)]
    once: bool,
    /// The folder to make; absent: `tollgate-quickstart` or the next free name
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    let folder = args.dir.clone().unwrap_or_else(free_folder);
    std::fs::create_dir(&folder).map_err(|error| CliError::file(&folder, &error))?;
    let scene = Scene::build(&folder, free_port(9191)?, free_port(9193)?)?;
    block_on(async {
        let config =
            sources::load(Some(&scene.config), std::iter::empty(), &[]).map_err(CliError::Configuration)?;
        let app = App::start(&config, Clock::system()).await?;
        let gate = address(app.decisions_address())?;
        output::line(&format!("A gate is running on {gate}, with what was made in {}:\n", folder.display()));
        for (file, what) in scene::FILES {
            output::line(&format!("  {file:<28}{what}"));
        }
        output::line("");
        let mut client = DecisionServiceClient::new(nearby(&gate).await?);
        ask(&scene, &mut client).await?;
        live::run_out(&mut client, &scene.metered).await?;
        live::revoke(&mut client, &scene.streamed, &folder).await?;
        explain(&scene, &gate, &folder, app.http_address());
        if args.once {
            return Ok(app.shutdown().await?);
        }
        output::line("\nCtrl-C stops the gate.");
        Ok(app.run_until_signal().await?)
    })?;
    Ok(ExitCode::SUCCESS)
}

fn address(address: Option<SocketAddr>) -> Result<String, CliError> {
    let address = address.ok_or_else(|| CliError::Failed("the gate does not listen on TCP".to_owned()))?;
    Ok(format!("http://{address}"))
}

fn free_folder() -> PathBuf {
    let name = |number: u32| if number == 1 { String::new() } else { format!("-{number}") };
    let folders = (1..u32::MAX).map(|number| PathBuf::from(format!("tollgate-quickstart{}", name(number))));
    folders.into_iter().find(|folder| !folder.exists()).unwrap_or_default()
}

/// The usual port, or any when it is taken.
fn free_port(usual: u16) -> Result<u16, CliError> {
    let bound = TcpListener::bind(("127.0.0.1", usual)).or_else(|_| TcpListener::bind(("127.0.0.1", 0)));
    Ok(bound.and_then(|listener| listener.local_addr()).map_err(CliError::failed)?.port())
}

/// Asks every question of the scene, and tells the answers in a table.
async fn ask(scene: &Scene, client: &mut DecisionServiceClient<Channel>) -> Result<(), CliError> {
    let mut rows = Vec::new();
    for question in &scene.questions {
        let license = LicenseRef::Token(question.token.clone());
        let request = CheckRequest { license, ..question.request.clone() };
        let answer = client.check(convert::ask(request)).await.map_err(CliError::failed)?.into_inner();
        let codes: Vec<&str> = answer.reasons.iter().map(|reason| reason.code.as_str()).collect();
        let words: Vec<&str> = answer.reasons.iter().map(|reason| reason.reason_user.as_str()).collect();
        rows.push(vec![
            question.words.to_owned(),
            word(&answer).to_owned(),
            codes.join(", "),
            words.join(" "),
        ]);
    }
    output::table(&["asked", "decision", "codes", "words"], rows);
    Ok(())
}

fn explain(scene: &Scene, gate: &str, folder: &Path, http: Option<SocketAddr>) {
    let path = |file: &str| folder.join(file).display().to_string();
    let tollgate = std::env::current_exe().map_or("tollgate".to_owned(), |path| path.display().to_string());
    output::line("\nAsk by hand:\n");
    output::line(&format!(
        "  {tollgate} check --gate {gate} --license {} \\\n    --subject ana --organization acme --action read --dataset sales/eu/orders --purpose Marketing",
        path("licenses/raw.license")
    ));
    output::line("\nRead a license:\n");
    output::line(&format!(
        "  {tollgate} inspect {} --keys {}",
        path("licenses/anonymized.license"),
        path("keys")
    ));
    output::line("\nRevoke a license, list what is registered, see what was used:\n");
    let admin = format!("--admin unix:{}", path("admin.sock"));
    output::line(&format!("  {tollgate} revoke {admin} --license license-raw --reason \"contract ended\""));
    output::line(&format!("  {tollgate} register {admin} {}", path("licenses/anonymized.license")));
    output::line(&format!("  {tollgate} licenses {admin}"));
    output::line(&format!("  {tollgate} usage {admin}"));
    output::line("\nRead the decision log:\n");
    output::line(&format!("  cat {}", path("decisions.jsonl")));
    output::line("\nRun the same gate again later:\n");
    output::line(&format!("  {tollgate} serve --config {}", scene.config.display()));
    if let Some(http) = http {
        output::line(&format!(
            "\nIts health, metrics and keys: http://{http}/readyz  /metrics  /.well-known/jwks.json"
        ));
    }
}
