//! Several evaluations in one request, with values that stand for what they leave out.
//!
//! Refuses more than [`MAX_EVALUATIONS`], and defaults that would make a short request a long one. One
//! evaluation that is malformed is a denial among the others.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::Failure;
use super::answer::Evaluated;
use super::members::{Members, list, object, text};
use super::question::question;
use crate::decision::{DecideError, Pdp, Semantic};
use crate::domain::{CheckRequest, Clock, Effect};
use crate::http::malformed::Malformed;

/// The most evaluations of a request.
const MAX_EVALUATIONS: usize = 1_000;

/// What an evaluation consists of, and so what has a default.
const ENTITIES: [&str; 4] = ["subject", "action", "resource", "context"];

/// What a body asks.
pub(super) enum Asked {
    /// One question: there were no evaluations.
    One(Box<CheckRequest>),
    /// Several.
    Many(Batch),
}

/// Several questions.
pub(super) struct Batch {
    questions: Vec<CheckRequest>,
    /// Evaluations that are none, by their position.
    malformed: BTreeMap<usize, Malformed>,
    semantic: Semantic,
}

/// Reads a body of at most `limit` bytes; with its defaults written out it may be no longer.
pub(super) fn open(body: Map<String, Value>, token: Option<&str>, limit: usize) -> Result<Asked, Failure> {
    let mut body = Members(body);
    let evaluations = body.take("evaluations", list)?.unwrap_or_default();
    if evaluations.is_empty() {
        return Ok(Asked::One(Box::new(question(body.0, token)?)));
    }
    if evaluations.len() > MAX_EVALUATIONS {
        return Err(Malformed::at("evaluations", "must have at most 1,000 items").into());
    }
    let semantic = body.take("options", |value| object(value)?.take("evaluations_semantic", semantic))?;
    let semantic = semantic.flatten().unwrap_or(Semantic::ExecuteAll);
    let mut defaults = Map::new();
    for name in ENTITIES {
        if let Some(Members(entity)) = body.take(name, object)? {
            defaults.insert(name.to_owned(), Value::Object(entity));
        }
    }
    if written_out(&defaults, &evaluations) > limit {
        return Err(Failure::TooLarge);
    }
    let mut batch = Batch { questions: Vec::new(), malformed: BTreeMap::new(), semantic };
    for (position, evaluation) in evaluations.into_iter().enumerate() {
        let read = object(evaluation).and_then(|Members(mut members)| {
            for (name, default) in &defaults {
                members.entry(name).or_insert_with(|| default.clone());
            }
            question(members, token)
        });
        match read {
            Ok(question) => batch.questions.push(question),
            Err(malformed) => {
                let malformed = malformed.within(&format!("[{position}]")).within("evaluations");
                batch.malformed.insert(position, malformed);
                if semantic.ends_with(Effect::Deny) {
                    break;
                }
            }
        }
    }
    Ok(Asked::Many(batch))
}

fn semantic(value: Value) -> Result<Semantic, Malformed> {
    match text(value)?.as_str() {
        "execute_all" => Ok(Semantic::ExecuteAll),
        "deny_on_first_deny" => Ok(Semantic::DenyOnFirstDeny),
        "permit_on_first_permit" => Ok(Semantic::PermitOnFirstPermit),
        _ => {
            let words = "must be one of `execute_all`, `deny_on_first_deny`, `permit_on_first_permit`";
            Err(Malformed::new(words))
        }
    }
}

/// The bytes that the defaults take where each evaluation has them written out.
fn written_out(defaults: &Map<String, Value>, evaluations: &[Value]) -> usize {
    let sizes = defaults.iter().map(|(name, default)| {
        let users = evaluations.iter().filter(|evaluation| evaluation.get(name).is_none()).count();
        default.to_string().len().saturating_mul(users)
    });
    sizes.fold(0, usize::saturating_add)
}

impl Batch {
    /// Evaluations that are none.
    pub(super) fn malformed(&self) -> impl Iterator<Item = &Malformed> {
        self.malformed.values()
    }

    /// The answers, in order; fewer where the semantic stops early.
    pub(super) async fn decide(
        mut self,
        pdp: &Pdp,
        trace_id: Option<&str>,
        clock: &Clock,
    ) -> Result<Vec<Evaluated>, DecideError> {
        let decided = pdp.check_batch(&self.questions, self.semantic, trace_id, clock).await?;
        let mut decided = decided.into_iter();
        let mut answers = Vec::new();
        for position in 0.. {
            let malformed = self.malformed.remove(&position).map(Evaluated::from);
            let Some(answer) = malformed.or_else(|| decided.next().map(Evaluated::from)) else { break };
            let effect = answer.effect();
            answers.push(answer);
            if self.semantic.ends_with(effect) {
                break;
            }
        }
        Ok(answers)
    }
}
