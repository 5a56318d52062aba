//! Uses that last, from outside: opened, metered, and ended at once by whatever ends them.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tollgate::proto::v1::check_stream_request::Message as Said;
use tollgate::proto::v1::check_stream_response::Message as Answer;
use tollgate::proto::v1::{
    CheckRequest, CheckResponse, CheckStreamRequest, CheckStreamResponse, ReportTaken, SettleRequest,
    StreamEnded, UsageReport,
};
use tonic::{Code, Streaming};

use super::gate::{Client, Gate, PATIENCE, Site, ask, codes, eventually, is_allowed, now};
use super::operators::{Admin, OVERRIDES};

/// A use that goes on, seen from its caller.
pub(crate) struct Use {
    said: mpsc::Sender<CheckStreamRequest>,
    answers: Streaming<CheckStreamResponse>,
}

impl Use {
    pub(crate) async fn open(client: &mut Client, question: CheckRequest) -> (Self, CheckResponse) {
        let (said, receiver) = mpsc::channel(4);
        let open = CheckStreamRequest { message: Some(Said::Open(question)) };
        said.send(open).await.unwrap();
        let answers = client.check_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        let mut this = Self { said, answers };
        match this.next().await {
            Answer::Opened(answer) => (this, answer),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn report(&mut self, metric: &str, amount: f64) {
        let usage = [(metric.to_owned(), amount)].into();
        let report = CheckStreamRequest { message: Some(Said::Report(UsageReport { usage })) };
        self.said.send(report).await.unwrap();
    }

    async fn next(&mut self) -> Answer {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await.expect("in time");
        answer.unwrap().expect("one more answer").message.unwrap()
    }

    pub(crate) async fn taken(&mut self) -> ReportTaken {
        match self.next().await {
            Answer::Taken(taken) => taken,
            other => panic!("{other:?}"),
        }
    }

    /// What ended it, and that nothing follows.
    pub(crate) async fn ended(&mut self) -> StreamEnded {
        let Answer::Ended(ended) = self.next().await else { panic!("it goes on") };
        assert!(self.answers.message().await.unwrap().is_none());
        ended
    }

    pub(crate) async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(150), self.answers.message()).await.is_err()
    }
}

fn ended_codes(ended: &StreamEnded) -> Vec<&str> {
    ended.reasons.iter().map(|reason| reason.code.as_str()).collect()
}

/// A token of a license with these quotas.
fn metered(site: &Site, id: &str, quotas: serde_json::Value) -> String {
    let mut claims = site.issuer.claims(id);
    claims["terms"]["quotas"] = quotas;
    site.issuer.sign(&claims)
}

#[tokio::test]
async fn a_revocation_ends_the_streams_that_it_concerns_and_no_other() {
    let gate = Gate::start(OVERRIDES);
    let mut admin = Admin::of(&gate).await;
    let mut client = gate.client().await;
    let (mut one, opened) = Use::open(&mut client, ask(&gate.site().issuer.license("one"))).await;
    assert!(is_allowed(&opened) && opened.status_as_of.is_some());
    let (mut other, _) = Use::open(&mut client, ask(&gate.site().issuer.license("other"))).await;
    assert_eq!(gate.metric("tollgate_streams", &[]), 2.0);
    admin.revoke("one").await;
    let ended = one.ended().await;
    assert_eq!(ended_codes(&ended), ["REVOKED"]);
    assert!(other.is_quiet().await);
    admin.suspend("other").await;
    assert_eq!(ended_codes(&other.ended().await), ["SUSPENDED"]);
    let (_, denied) = Use::open(&mut client, ask(&gate.site().issuer.license("one"))).await;
    assert_eq!(codes(&denied), ["REVOKED"]);
    eventually("the uses are over", async || gate.metric("tollgate_streams", &[]) == 0.0).await;
    let records = gate.stop().await.site.records();
    let record = records.iter().find(|record| record["decision_id"] == ended.decision_id.as_str());
    assert_eq!(record.unwrap()["decision"], "deny", "what ended it left a record");
}

#[tokio::test]
async fn a_stream_ends_when_its_license_does() {
    let gate = Gate::start(&[]);
    let mut claims = gate.site().issuer.claims("short");
    claims["exp"] = json!(now() + 2);
    let token = gate.site().issuer.sign(&claims);
    let (mut stream, opened) = Use::open(&mut gate.client().await, ask(&token)).await;
    assert!(is_allowed(&opened));
    let begun = Instant::now();
    assert_eq!(ended_codes(&stream.ended().await), ["EXPIRED"]);
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_reports_without_a_pause_ends_when_its_license_does() {
    let gate = Gate::start(&[]);
    let mut claims = gate.site().issuer.claims("short");
    claims["exp"] = json!(now() + 2);
    let token = gate.site().issuer.sign(&claims);
    let (Use { said, mut answers }, _) = Use::open(&mut gate.client().await, ask(&token)).await;
    let begun = Instant::now();
    tokio::spawn(async move {
        let usage = [("rows".to_owned(), 1.0)].into();
        let report = CheckStreamRequest { message: Some(Said::Report(UsageReport { usage })) };
        while said.send(report.clone()).await.is_ok() {}
    });
    let ended = loop {
        match answers.message().await.unwrap().unwrap().message.unwrap() {
            Answer::Taken(_) => assert!(begun.elapsed() < Duration::from_secs(4), "it goes on"),
            Answer::Ended(ended) => break ended,
            Answer::Opened(opened) => panic!("{opened:?}"),
        }
    };
    assert_eq!(ended_codes(&ended), ["EXPIRED"]);
}

#[tokio::test]
async fn reports_take_from_the_quota_and_the_last_unit_ends_it() {
    let gate = Gate::start(&[]);
    let quotas = json!([{"id": "q", "metric": "bytes", "limit": 100, "per": "license", "window": "total"}]);
    let token = metered(gate.site(), "metered", quotas);
    let mut client = gate.client().await;
    let (mut stream, opened) = Use::open(&mut client, ask(&token)).await;
    assert!(is_allowed(&opened));
    stream.report("bytes", 60.0).await;
    assert_eq!(stream.taken().await.quotas[0].remaining, 40.0);
    stream.report("rows", 5.0).await;
    stream.taken().await;
    stream.report("bytes", 41.0).await;
    let ended = stream.ended().await;
    assert_eq!(ended_codes(&ended), ["QUOTA_EXCEEDED"]);
    assert_eq!(ended.quotas[0].remaining, 40.0, "nothing of the refused report was taken");
    let (mut stream, _) = Use::open(&mut client, ask(&token)).await;
    stream.report("bytes", 40.0).await;
    assert_eq!(stream.taken().await.quotas[0].remaining, 0.0);
    assert_eq!(ended_codes(&stream.ended().await), ["QUOTA_EXCEEDED"]);
    let answer = gate.check(ask(&token)).await;
    assert_eq!(codes(&answer), ["QUOTA_EXCEEDED"], "nothing is left for anybody");
}

#[tokio::test]
async fn what_others_use_up_ends_whoever_reported_to_it() {
    let gate = Gate::start(&[]);
    let quotas = json!([{"id": "q", "metric": "bytes", "limit": 100, "per": "license", "window": "total"}]);
    let token = metered(gate.site(), "metered", quotas);
    let mut client = gate.client().await;
    let (mut first, _) = Use::open(&mut client, ask(&token)).await;
    let (mut silent, _) = Use::open(&mut client, ask(&token)).await;
    first.report("bytes", 10.0).await;
    assert_eq!(first.taken().await.quotas[0].remaining, 90.0);
    let mut question = ask(&token);
    question.usage.insert("bytes".into(), 70.0);
    assert!(is_allowed(&gate.check(question.clone()).await));
    assert!(first.is_quiet().await, "20 are left");
    question.usage.insert("bytes".into(), 20.0);
    assert!(is_allowed(&gate.check(question.clone()).await));
    let ended = first.ended().await;
    assert_eq!(ended_codes(&ended), ["QUOTA_EXCEEDED"]);
    assert_eq!(ended.quotas[0].remaining, 0.0);
    assert!(silent.is_quiet().await, "it never took anything of that");
}

#[tokio::test]
async fn a_stream_hangs_on_the_quotas_that_it_reports_to_and_on_no_other() {
    let gate = Gate::start(&[]);
    let quota = |metric: &str, limit: u32| json!({"id": metric, "metric": metric, "limit": limit, "per": "license", "window": "total"});
    let token = metered(gate.site(), "last", json!([quota("requests", 1), quota("bytes", 10)]));
    let (mut stream, opened) = Use::open(&mut gate.client().await, ask(&token)).await;
    assert!(is_allowed(&opened), "it is the last request that the license allows");
    stream.report("bytes", 4.0).await;
    assert_eq!(
        stream.taken().await.quotas.iter().map(|quota| quota.remaining).collect::<Vec<_>>(),
        [0.0, 6.0]
    );
    let next = gate.check(ask(&token)).await;
    assert_eq!(codes(&next), ["QUOTA_EXCEEDED"]);
}

#[tokio::test]
async fn no_report_gets_past_a_revocation_while_it_is_recorded() {
    let gate = Gate::start(&[OVERRIDES, &[("audit.mode", "durable")]].concat());
    let mut admin = Admin::of(&gate).await;
    let mut client = gate.client().await;
    for number in 0..10 {
        let id = format!("l{number}");
        let (mut stream, _) = Use::open(&mut client, ask(&gate.site().issuer.license(&id))).await;
        let said = stream.said.clone();
        // Reports are always waiting to be taken.
        let reporting = tokio::spawn(async move {
            let report = || UsageReport { usage: [("rows".to_owned(), 1.0)].into() };
            while said.send(CheckStreamRequest { message: Some(Said::Report(report())) }).await.is_ok() {}
        });
        stream.taken().await;
        admin.revoke(&id).await;
        let told = async {
            loop {
                if let Answer::Ended(ended) = stream.next().await {
                    return ended;
                }
            }
        };
        let ended = tokio::time::timeout(Duration::from_secs(3), told).await.expect("the revocation ends it");
        assert_eq!(ended_codes(&ended), ["REVOKED"]);
        drop(stream);
        reporting.await.unwrap();
    }
}

#[tokio::test]
async fn a_policy_that_now_forbids_ends_it() {
    let site = Site::new();
    site.write("policies/none.cedar", "// None yet.\n");
    let gate = site.start(&[("policies.directory", "policies")]);
    let (mut stream, opened) =
        Use::open(&mut gate.client().await, ask(&gate.site().issuer.license("l"))).await;
    assert!(is_allowed(&opened));
    let words = "@reason(\"Closed.\") @admin(\"closed\") @passes(\"it opens\")";
    gate.site().write(
        "policies/none.cedar",
        &format!("@id(\"house/closed\") {words} forbid (principal, action, resource);"),
    );
    assert_eq!(ended_codes(&stream.ended().await), ["POLICY_FORBIDS"]);
}

#[tokio::test]
async fn a_gate_that_stops_tells_its_streams() {
    let gate = Gate::start(&[]);
    let (mut stream, _) = Use::open(&mut gate.client().await, ask(&gate.site().issuer.license("l"))).await;
    let begun = Instant::now();
    let stopping = tokio::spawn(gate.stop());
    let status = stream.answers.message().await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(stopping.await.unwrap().code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "the grace was not used up");
}

#[tokio::test]
async fn what_is_not_a_stream_is_refused_with_words() {
    let gate = Gate::start(&[]);
    let mut client = gate.client().await;
    let (said, receiver) = mpsc::channel(1);
    let report = CheckStreamRequest { message: Some(Said::Report(UsageReport::default())) };
    said.send(report).await.unwrap();
    let mut answers = client.check_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let status = answers.message().await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("`open`")), (Code::InvalidArgument, true));
    let (mut stream, _) = Use::open(&mut client, ask(&gate.site().issuer.license("l"))).await;
    stream.report("bytes", -1.0).await;
    assert_eq!(ended_codes(&stream.ended().await), ["CONTEXT_INVALID"]);
}

#[tokio::test]
async fn a_reservation_is_settled_once_and_for_less() {
    let gate = Gate::start(&[]);
    let quotas = json!([{"id": "q", "metric": "rows", "limit": 100, "per": "user", "window": "day"}]);
    let token = metered(gate.site(), "metered", quotas);
    let question = CheckRequest { usage: [("rows".to_owned(), 80.0)].into(), ..ask(&token) };
    let mut client = gate.client().await;
    let answer = client.check(question.clone()).await.unwrap().into_inner();
    assert_eq!((answer.quotas[0].limit, answer.quotas[0].remaining), (100.0, 20.0));
    assert!(answer.quotas[0].resets_at.is_some() && !answer.reservation_id.is_empty());
    let denied = client.check(question.clone()).await.unwrap().into_inner();
    assert_eq!((codes(&denied), denied.quotas[0].remaining), (vec!["QUOTA_EXCEEDED"], 20.0));
    let settle = |rows: f64| SettleRequest {
        reservation_id: answer.reservation_id.clone(),
        usage: [("rows".to_owned(), rows)].into(),
    };
    let status = client.settle(settle(81.0)).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("rows")), (Code::InvalidArgument, true));
    let settled = client.settle(settle(10.0)).await.unwrap().into_inner();
    assert_eq!(settled.quotas[0].remaining, 90.0);
    let again = client.settle(settle(10.0)).await.unwrap().into_inner();
    assert_eq!(again.quotas[0].remaining, 90.0, "as before, and nothing goes back twice");
    assert_eq!(client.settle(settle(9.0)).await.unwrap_err().code(), Code::FailedPrecondition);
    let strange = SettleRequest { reservation_id: uuid::Uuid::new_v4().to_string(), ..settle(9.0) };
    assert_eq!(client.settle(strange).await.unwrap_err().code(), Code::NotFound);
    let unknown = SettleRequest { reservation_id: "not an id".into(), ..SettleRequest::default() };
    assert_eq!(client.settle(unknown).await.unwrap_err().code(), Code::InvalidArgument);
    assert!(is_allowed(&client.check(question).await.unwrap().into_inner()));
}
