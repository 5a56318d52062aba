//! What state costs: chunks of quotas set aside in a second, streams held open and cut, and a store full
//! of registered licenses to start on.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tollgate::config::Postgres;
use tollgate::domain::Amount;
use tollgate::domain::time::Timestamp;
use tollgate::grpc::convert;
use tollgate::proto::v1::check_stream_request::Message as Said;
use tollgate::proto::v1::check_stream_response::Message as Answer;
use tollgate::proto::v1::decision_service_client::DecisionServiceClient;
use tollgate::proto::v1::license_service_client::LicenseServiceClient;
use tollgate::proto::v1::target::Which;
use tollgate::proto::v1::{CheckStreamRequest, RevokeLicenseRequest, Target};
use tollgate::store::postgres::PostgresStore;
use tollgate::store::redb::RedbStore;
use tollgate::store::{Registered, StateStore, Take};
use tonic::Streaming;
use tonic::transport::Endpoint;
use uuid::Uuid;

use crate::scene::{ISSUER, Scene, request};

/// Callers at once.
const CALLERS: usize = 64;

/// For how long chunks are set aside.
const LASTS: Duration = Duration::from_secs(3);

/// Streams of one connection.
const STREAMS: usize = 500;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
}

/// Chunks of one counter that a store sets aside in a second: a file, or the database of a URL.
pub(crate) fn leases(place: &str) {
    let runtime = runtime();
    let taken = runtime.block_on(async {
        let store: Arc<dyn StateStore> = if place.starts_with("postgres:") {
            let config: Postgres = serde_json::from_value(serde_json::json!({ "url": place })).unwrap();
            Arc::new(PostgresStore::open(&config).await.unwrap())
        } else {
            Arc::new(RedbStore::open(Path::new(place)).unwrap())
        };
        let taken = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let callers = (0..CALLERS).map(|_| {
            let (store, taken) = (store.clone(), taken.clone());
            tokio::spawn(async move {
                while begun.elapsed() < LASTS {
                    store.take(&chunk()).await.unwrap();
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        store.close().await;
        taken.load(Ordering::Relaxed)
    });
    println!("{}", serde_json::json!({ "per_second": taken as f64 / LASTS.as_secs_f64() }));
}

fn chunk() -> Take {
    Take {
        counter: "one".to_owned(),
        window: Timestamp::UNIX_EPOCH,
        ends: Timestamp::MAX,
        lease: Uuid::new_v4(),
        gate: "bench".to_owned(),
        want: Amount::ONE,
        least: Amount::ZERO,
        limit: Amount::whole(u64::MAX),
    }
}

/// Fills a state file with so many registered licenses.
pub(crate) fn register(file: &str, licenses: usize) {
    let scene = Scene::new(0, "0 B");
    runtime().block_on(async {
        let store = Arc::new(RedbStore::open(Path::new(file)).unwrap());
        let numbers = Arc::new(AtomicU64::new(0));
        let tokens: Arc<Vec<String>> = Arc::new((0..100).map(|number| scene.token(number, &[])).collect());
        let registrars = (0..CALLERS).map(|_| {
            let (store, numbers, tokens, now) = (store.clone(), numbers.clone(), tokens.clone(), scene.now);
            tokio::spawn(async move {
                loop {
                    let number = usize::try_from(numbers.fetch_add(1, Ordering::Relaxed)).unwrap();
                    if number >= licenses {
                        return;
                    }
                    let token = tokens.get(number % tokens.len()).unwrap().clone();
                    store.register(&registered(number, token, now)).await.unwrap();
                }
            })
        });
        for registrar in registrars.collect::<Vec<_>>() {
            registrar.await.unwrap();
        }
        store.close().await;
    });
}

fn registered(number: usize, token: String, now: Timestamp) -> Registered {
    Registered {
        id: format!("license-{number:08}"),
        issuer: ISSUER.to_owned(),
        assignee: "acme".to_owned(),
        kid: "key".to_owned(),
        not_before: now,
        expires: Timestamp::MAX,
        token,
        registered_at: now,
        registered_by: "bench".to_owned(),
    }
}

/// Opens so many streams at a gate under one license, tells on a line that they are open, and when a line
/// comes in, revokes the license and tells how long the last stream lived on.
pub(crate) fn streams(gate: &str, admin: &str, token: &str, license: &str, count: usize) {
    runtime().block_on(async {
        let mut open = Vec::new();
        while open.len() < count {
            let channel = Endpoint::from_shared(gate.to_owned()).unwrap().connect().await.unwrap();
            let mut client = DecisionServiceClient::new(channel);
            for _ in 0..STREAMS.min(count - open.len()) {
                let (said, received) = mpsc::channel(1);
                let question = Said::Open(convert::ask(request(token.to_owned())));
                said.send(CheckStreamRequest { message: Some(question) }).await.unwrap();
                let stream = client.check_stream(ReceiverStream::new(received)).await.unwrap();
                let mut answers = stream.into_inner();
                assert!(
                    matches!(next(&mut answers).await, Answer::Opened(opened) if opened.reasons.is_empty())
                );
                open.push((said, answers));
            }
        }
        println!("open");
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()))
            .await
            .unwrap()
            .unwrap();
        let ends: Vec<_> = open
            .into_iter()
            .map(|(said, mut answers)| {
                tokio::spawn(async move {
                    let ended = matches!(next(&mut answers).await, Answer::Ended(_));
                    drop(said);
                    (ended, Instant::now())
                })
            })
            .collect();
        let mut administration = LicenseServiceClient::connect(admin.to_owned()).await.unwrap();
        let target = Target { issuer: String::new(), which: Some(Which::LicenseId(license.to_owned())) };
        let revoke = RevokeLicenseRequest { target: Some(target), reason: "bench".to_owned() };
        administration.revoke_license(revoke).await.unwrap();
        let acknowledged = Instant::now();
        let mut last = Duration::ZERO;
        for end in ends {
            let (ended, at) = end.await.unwrap();
            assert!(ended);
            last = last.max(at.saturating_duration_since(acknowledged));
        }
        println!("{}", serde_json::json!({ "last_ms": last.as_secs_f64() * 1e3 }));
    });
}

async fn next(answers: &mut Streaming<tollgate::proto::v1::CheckStreamResponse>) -> Answer {
    answers.message().await.unwrap().unwrap().message.unwrap()
}
