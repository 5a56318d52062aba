//! `tollgate injector`: puts gates into the pods of Kubernetes, until it is told to stop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, block_on};
use crate::document::Problem;
use crate::domain::Clock;
use crate::injector::certificate::{Keeper, Names};
use crate::injector::{Injector, InjectorError};
use crate::listener::{ListenError, Listener};
use crate::{config, telemetry};

/// Connections that may be open at once: API servers are few.
const CONNECTIONS: u32 = 1000;

/// How long reviews that are under way may take when it stops. The API server waits no longer for any.
const GRACE: Duration = Duration::from_secs(10);

/// Put gates into the pods of Kubernetes
///
/// A mutating admission webhook, at /inject over TLS, with /healthz beside it. What a gate looks like is in the template;
/// docs/kubernetes.md tells what pods may ask for. Template and certificate are read again when they change. With
/// `--secret`, it makes the certificate itself, and has API servers trust it. Runs until SIGTERM or SIGINT. A bad template
/// or certificate exits 64.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  tollgate injector --template template.yaml --tls-certificate tls.crt --tls-key tls.key"
)]
pub(super) struct Args {
    /// Address and port
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9443")]
    listen: SocketAddr,
    /// The certificate that is shown to API servers, PEM
    #[arg(long, value_name = "FILE")]
    tls_certificate: PathBuf,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// What is put into pods: `container`, `volumes`, `mounts` and `fsGroup`, YAML
    #[arg(long, value_name = "FILE")]
    template: PathBuf,
    /// Make the certificate, write it to these files, and keep it in this Secret; under the Lease of the same name
    #[arg(long, value_name = "NAME", requires_all = ["webhook", "dns_name"])]
    secret: Option<String>,
    /// The MutatingWebhookConfiguration that is told whom to trust
    #[arg(long, value_name = "NAME", requires = "secret")]
    webhook: Option<String>,
    /// The name by which API servers ask, such as `SERVICE.NAMESPACE.svc`
    #[arg(long, value_name = "NAME", requires = "secret")]
    dns_name: Option<String>,
}

pub(super) fn run(args: &Args) -> Result<ExitCode, CliError> {
    block_on(async {
        let injector = Injector::open(&args.template).map_err(|error| match error {
            InjectorError::Template(problems) => CliError::Configuration(problems),
            other @ InjectorError::Watch(_) => CliError::failed(other),
        })?;
        // What happens to templates and certificates from here on is logged.
        let _telemetry =
            telemetry::start(&config::Telemetry::default(), "injector").map_err(CliError::failed)?;
        let (mut terminate, mut interrupt) = (told(SignalKind::terminate())?, told(SignalKind::interrupt())?);
        if let Some(mut keeper) = keeper(args).await? {
            tokio::select! {
                () = keeper.first() => {}
                _ = terminate.recv() => return Ok(ExitCode::SUCCESS),
                _ = interrupt.recv() => return Ok(ExitCode::SUCCESS),
            }
            tokio::spawn(keeper.follow());
        }
        let listener = listen(args).await?;
        tracing::info!(
            address = listener.local_addr().map(tracing::field::display),
            "the injector is listening"
        );
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let serving = injector.serve(listener, async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            // Fails only when nobody waits any more.
            let _ = stop.send(());
        });
        let late = async {
            drop(stopped.await);
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            () = serving => {}
            () = late => tracing::warn!("reviews were cut: they did not finish within the grace"),
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Who makes the certificate, where none is brought.
async fn keeper(args: &Args) -> Result<Option<Keeper>, CliError> {
    let (Some(secret), Some(webhook), Some(dns_name)) =
        (args.secret.clone(), args.webhook.clone(), args.dns_name.clone())
    else {
        return Ok(None);
    };
    let names = Names { secret, webhook, dns_name };
    let keeper = Keeper::new(names, &args.tls_certificate, &args.tls_key, Clock::system()).await;
    keeper.map(Some).map_err(CliError::failed)
}

async fn listen(args: &Args) -> Result<Listener, CliError> {
    let tls =
        config::Tls { certificate: args.tls_certificate.clone(), key: args.tls_key.clone(), client_ca: None };
    let config = config::Listener { tcp: Some(args.listen), tls: Some(tls), ..config::Listener::default() };
    Listener::bind(&config, CONNECTIONS, |_| {}).await.map_err(|error| match error {
        ListenError::Tls(error) => {
            CliError::Configuration(Problem::new("--tls-certificate, --tls-key", error.to_string()).into())
        }
        other => CliError::failed(other),
    })
}

fn told(kind: SignalKind) -> Result<tokio::signal::unix::Signal, CliError> {
    signal(kind).map_err(CliError::failed)
}
