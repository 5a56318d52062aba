//! Every way to ask the gate gives the same answer: thousands of questions, with licenses of every kind,
//! asked over each surface.
//!
//! Another surface joins by implementing [`Surface`] and by a line in [`surfaces`].

mod ext_authz;
mod questions;

use std::collections::BTreeMap;

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value, json};
use tollgate::domain::{CheckRequest, LicenseRef};
use tollgate::grpc::convert;
use tonic::async_trait;

use super::authzen::{ATTRIBUTES, EVALUATION, HOUSE, WITH_POLICIES, bearing};
use super::gate::{AUDIENCE, Client, Gate, Site, program};
use super::web::Web;

/// The questions that are asked over every surface.
const QUESTIONS: usize = 3_000;

/// What an answer says that is the same whoever is asked, and whenever.
#[derive(Clone, Debug, PartialEq)]
struct Verdict {
    allowed: bool,
    /// Code, policy and what would pass, of every reason.
    reasons: Vec<[String; 3]>,
    /// Id and type of every duty.
    obligations: Vec<[String; 2]>,
    /// What is left of each quota.
    remaining: BTreeMap<String, f64>,
}

impl Verdict {
    fn codes(&self) -> impl Iterator<Item = &str> {
        self.reasons.iter().map(|[code, ..]| code.as_str())
    }
}

/// A way to ask the gate.
#[async_trait]
trait Surface {
    async fn ask(&mut self, question: &CheckRequest) -> Verdict;

    /// Whether it has words for all of the question.
    fn can_say(&self, _: &CheckRequest) -> bool {
        true
    }

    /// What of a verdict it tells.
    fn tells(&self, verdict: &Verdict) -> Verdict {
        verdict.clone()
    }
}

/// gRPC: `tollgate.v1.DecisionService/Check`.
struct Native(Client);

#[async_trait]
impl Surface for Native {
    async fn ask(&mut self, question: &CheckRequest) -> Verdict {
        let answer = self.0.check(convert::ask(question.clone())).await.unwrap().into_inner();
        Verdict {
            allowed: super::gate::is_allowed(&answer),
            reasons: answer
                .reasons
                .into_iter()
                .map(|reason| [reason.code, reason.policy_id, reason.would_pass_if])
                .collect(),
            obligations: answer.obligations.into_iter().map(|duty| [duty.id, duty.r#type]).collect(),
            remaining: answer.quotas.into_iter().map(|quota| (quota.id, quota.remaining)).collect(),
        }
    }
}

/// HTTP: AuthZEN's evaluation.
struct Authzen {
    web: Web,
    /// How many were asked: what may be said in two ways is said in both.
    asked: usize,
}

#[async_trait]
impl Surface for Authzen {
    async fn ask(&mut self, question: &CheckRequest) -> Verdict {
        self.asked += 1;
        let (body, header) = evaluation(question, self.asked.is_multiple_of(2));
        let header = header.map(|token| bearing(&token));
        let headers: Vec<_> = header.iter().map(|value| ("authorization", value.as_str())).collect();
        let reply = self.web.post(EVALUATION, &headers, &body);
        assert_eq!(reply.status, 200, "{}\n{body}", reply.body);
        let answer = reply.json();
        let context = &answer["context"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = |name: &str| context[name].as_array().cloned().unwrap_or_default();
        Verdict {
            allowed: answer["decision"].as_bool().unwrap(),
            reasons: all("reasons")
                .iter()
                .map(|reason| ["code", "policy_id", "would_pass_if"].map(|name| text(&reason[name])))
                .collect(),
            obligations: all("obligations")
                .iter()
                .map(|duty| ["id", "type"].map(|name| text(&duty[name])))
                .collect(),
            remaining: all("quotas")
                .iter()
                .map(|quota| (text(&quota["id"]), quota["remaining"].as_f64().unwrap()))
                .collect(),
        }
    }
}

/// A question as AuthZEN's body, and the token of its head: the license, and the operator's own
/// attributes, stand in one of two places.
fn evaluation(question: &CheckRequest, other: bool) -> (Value, Option<String>) {
    let CheckRequest { subject, holder, .. } = question;
    let mut context = json!({
        "purpose": question.purpose, "region": question.region, "project": question.project,
        "environment": question.environment, "combined_with": question.combined_with,
        "combined_with_external": question.combined_with_external, "usage": question.usage,
        "supported_obligations": question.supported_obligations, "request_id": question.request_id,
        "holder": holder, "explain": question.explain, "dry_run": question.dry_run,
    });
    let said = context.as_object_mut().unwrap();
    said.retain(|_, value| {
        !(other && (*value == json!("") || *value == json!(false) || *value == json!([])))
    });
    let own = question.context.clone();
    if other {
        said.extend(own);
    } else {
        drop(said.insert("attributes".to_owned(), own.into()));
    }
    let mut header = None;
    match &question.license {
        LicenseRef::Missing => {}
        LicenseRef::Token(token) if other => header = Some(token.clone()),
        LicenseRef::Token(token) => drop(said.insert("license".to_owned(), token.as_str().into())),
        LicenseRef::Id(id) => drop(said.insert("license_id".to_owned(), id.as_str().into())),
    }
    let body = json!({
        "subject": {
            "type": "user", "id": subject.id,
            "properties": {"organization": subject.organization, "roles": subject.roles},
        },
        "action": {"name": question.action},
        "resource": {
            "type": question.resource.kind, "id": question.resource.id,
            "properties": question.resource.properties,
        },
        "context": context,
    });
    (body, header)
}

/// Every surface of a gate, by its name; each is compared with the first.
async fn surfaces(gate: &Gate) -> Vec<(&'static str, Box<dyn Surface + Send>)> {
    vec![
        ("native", Box::new(Native(gate.client().await))),
        ("AuthZEN", Box::new(Authzen { web: Web::to(gate), asked: 0 })),
        ("ext_authz", Box::new(ext_authz::ExtAuthz::of(gate).await)),
    ]
}

/// A gate whose operator has policies and attributes of its own, and which has a license registered.
fn start() -> Gate {
    let site = Site::new();
    site.write("policies/attributes.cedarschema", ATTRIBUTES);
    site.write("policies/house.cedar", HOUSE);
    site.write("catalog.json", &questions::catalog().to_string());
    site.write("registered.license", &site.issuer.sign(&json!(questions::in_force("registered"))));
    let audiences = format!("[{AUDIENCE}]");
    let gate = site.start(&[
        WITH_POLICIES,
        ("policies.catalog", "catalog.json"),
        ("gate.audiences", &audiences),
        ("listeners.administration.unix", "admin.sock"),
        ("envoy", &ext_authz::configuration()),
    ]);
    let register = ["register", "registered.license", "--admin", "unix:admin.sock"];
    let output = program(&gate.site().path(""), &register).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    gate
}

#[tokio::test]
async fn every_surface_gives_the_same_answer() {
    let gate = start();
    let mut surfaces = surfaces(&gate).await;
    let mut runner = TestRunner::deterministic();
    let questions = questions::any(&gate.site().issuer);
    let mut met: BTreeMap<String, usize> = BTreeMap::new();
    let mut asked: BTreeMap<&str, usize> = BTreeMap::new();
    for number in 0..QUESTIONS {
        let question = questions.new_tree(&mut runner).unwrap().current();
        let mut first: Option<Verdict> = None;
        for (name, surface) in surfaces.iter_mut().filter(|(_, surface)| surface.can_say(&question)) {
            let verdict = surface.ask(&question).await;
            *asked.entry(name).or_default() += 1;
            match &first {
                Some(first) => {
                    assert_eq!(surface.tells(first), verdict, "{name}, question {number}: {question:?}");
                }
                None => first = Some(verdict),
            }
        }
        let verdict = first.unwrap();
        assert_eq!(verdict.allowed, verdict.reasons.is_empty());
        let words = if verdict.allowed { vec!["allowed"] } else { verdict.codes().collect() };
        words.into_iter().for_each(|word| *met.entry(word.to_owned()).or_default() += 1);
    }
    // Questions that are all denied for the same reason would show nothing.
    for word in questions::OUTCOMES {
        assert!(met.get(word).is_some_and(|count| *count >= 5), "{word} is too rare: {met:?}");
    }
    assert!(asked.values().all(|count| *count >= QUESTIONS / 3), "{asked:?}");
    let recorded = gate.stop().await.site.records();
    let decisions = recorded.iter().filter(|record| record["decision_id"].is_string()).count();
    assert_eq!(decisions, asked.values().sum::<usize>(), "every answer has its record");
}

#[tokio::test]
async fn a_quota_is_one_whichever_way_it_is_used() {
    let gate = start();
    let mut claims = questions::in_force("counted");
    claims.terms.quotas = serde_json::from_value(json!([
        {"id": "reads", "metric": "requests", "limit": 7, "per": "license", "window": "total"},
        {"id": "rows", "metric": "rows", "limit": 100, "per": "user", "window": "total"},
    ]))
    .unwrap();
    let token = gate.site().issuer.sign(&json!(claims));
    let mut surfaces = surfaces(&gate).await;
    // Envoy has no word for how much is used.
    surfaces.retain(|(name, _)| *name != "ext_authz");
    let ways = surfaces.len();
    let mut number = 0;
    let question = |id: &str, rows: f64| CheckRequest {
        license: LicenseRef::Token(token.clone()),
        request_id: id.to_owned(),
        usage: [("rows".to_owned(), rows)].into(),
        context: Map::from_iter([("time".to_owned(), "t".into()), ("ip".to_owned(), "i".into())]),
        ..questions::allowed()
    };
    let mut ask = async |id: &str, rows: f64| {
        number += 1;
        surfaces[number % ways].1.ask(&question(id, rows)).await
    };
    for used in 1..=5 {
        let verdict = ask("", 10.0).await;
        assert_eq!(verdict.remaining["reads"], f64::from(7 - used), "{verdict:?}");
        assert_eq!(verdict.remaining["rows"], f64::from(100 - 10 * used));
    }
    // One id is one use, also where it is asked for in two ways.
    for _ in 0..4 {
        assert_eq!(ask("once", 10.0).await.remaining["reads"], 1.0);
    }
    let too_much = ask("", 41.0).await;
    assert_eq!(
        (too_much.codes().collect::<Vec<_>>(), too_much.remaining["rows"]),
        (vec!["QUOTA_EXCEEDED"], 40.0)
    );
    assert!(ask("", 30.0).await.allowed);
    for _ in 0..2 * ways {
        let over = ask("", 0.0).await;
        assert_eq!(
            (over.codes().collect::<Vec<_>>(), over.remaining["reads"]),
            (vec!["QUOTA_EXCEEDED"], 0.0)
        );
    }
}
