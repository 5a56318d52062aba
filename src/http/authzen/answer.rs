//! Answers in AuthZEN's words: everything that the native answer says is in `context`.
//!
//! Refuses `decision: true` for anything but an allow.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Number;

use crate::domain::outcome::QuotaState;
use crate::domain::{Amount, Decision, Effect, Obligation, Reason};
use crate::http::malformed::Malformed;

/// The answer to one evaluation.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Evaluated {
    /// Whether the use is allowed.
    pub decision: bool,
    /// Why, with which duties, and how quotas stand; or why this evaluation could not be read.
    pub context: EvaluatedContext,
}

/// What comes with a decision.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum EvaluatedContext {
    /// It was decided.
    Decided(Box<DecidedContext>),
    /// One of several evaluations was not well-formed; nothing was decided.
    Unread(UnreadContext),
}

/// What the gate says of a decision.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DecidedContext {
    /// The id of the decision and of its record (UUIDv7).
    pub id: String,
    /// The codes of all reasons for a denial, each once; docs/reasons.md lists them.
    pub codes: Vec<&'static str>,
    /// Words for the person who asked, by code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reason_user: BTreeMap<&'static str, String>,
    /// Words for the administrator, by code.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub reason_admin: BTreeMap<&'static str, String>,
    /// Every reason for a denial.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<ReasonAnswer>,
    /// What must be done by whoever goes ahead; only with an allow.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub obligations: Vec<Obligation>,
    /// How the quotas of the license stand after this decision; only where they were looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaAnswer>,
    /// The id of what was taken from quotas, for `Settle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "uuid"))]
    pub reservation_id: Option<String>,
    /// The end of the license's validity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub valid_until: Option<String>,
    /// What was revoked before this moment is known to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub status_as_of: Option<String>,
    /// The revision of policies and catalog that decided.
    pub policy_revision: String,
    /// `false` while the gate is on a dry run (`tollgate serve --dry-run-all`): `decision` is `true` whatever is wrong,
    /// and `reasons` says what would have denied it. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforced: Option<bool>,
    /// The policies that granted; only where `explain` was asked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub granting_policies: Vec<String>,
}

/// One reason for a denial.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReasonAnswer {
    /// Its code.
    pub code: &'static str,
    /// The policy that objected; absent where the objection is not a policy's.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub policy_id: String,
    /// Words for the person who asked.
    pub reason_user: String,
    /// Words for the administrator, with the values that were compared.
    pub reason_admin: String,
    /// What would have to hold for this reason to vanish.
    pub would_pass_if: String,
    /// The law that objects, as the policy cites it; absent where it is not a law.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cite: Option<String>,
}

/// How one quota stands.
#[derive(Debug, Serialize, JsonSchema)]
pub struct QuotaAnswer {
    /// Its id in the license.
    pub id: String,
    /// What is counted.
    pub metric: String,
    /// The most that may be used in one window.
    #[schemars(with = "f64")]
    pub limit: Number,
    /// What is left in this window, as far as the gate knows.
    #[schemars(with = "f64")]
    pub remaining: Number,
    /// When the window ends; absent where it ends with the license.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub resets_at: Option<String>,
}

/// What comes with an evaluation that could not be read.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnreadContext {
    /// What was wrong.
    pub error: UnreadError,
}

/// Why an evaluation could not be read.
#[derive(Debug, Serialize, JsonSchema)]
pub struct UnreadError {
    /// The status that it would have had alone.
    pub status: u16,
    /// What was wrong, and where.
    pub message: String,
    /// The path of the member that was wrong.
    pub field: String,
}

/// The answers to several evaluations, in their order.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EvaluatedAll {
    /// Fewer than were asked where the semantic stopped early.
    pub evaluations: Vec<Evaluated>,
}

impl Evaluated {
    pub(super) fn effect(&self) -> Effect {
        if self.decision { Effect::Allow } else { Effect::Deny }
    }
}

impl From<Malformed> for Evaluated {
    fn from(malformed: Malformed) -> Self {
        let error =
            UnreadError { status: 400, message: malformed.to_string(), field: malformed.field().to_owned() };
        Self { decision: false, context: EvaluatedContext::Unread(UnreadContext { error }) }
    }
}

impl From<Decision> for Evaluated {
    fn from(decision: Decision) -> Self {
        let mut codes: Vec<&'static str> = Vec::new();
        let (mut reason_user, mut reason_admin) = (BTreeMap::new(), BTreeMap::new());
        for reason in &decision.reasons {
            let code = reason.code.as_str();
            if !codes.contains(&code) {
                codes.push(code);
            }
            add(&mut reason_user, code, &reason.reason_user);
            add(&mut reason_admin, code, &reason.reason_admin);
        }
        let context = DecidedContext {
            id: decision.id.to_string(),
            codes,
            reason_user,
            reason_admin,
            reasons: decision.reasons.into_iter().map(ReasonAnswer::from).collect(),
            obligations: decision.obligations,
            quotas: decision.quotas.into_iter().map(QuotaAnswer::from).collect(),
            reservation_id: decision.reservation.map(|id| id.to_string()),
            valid_until: decision.valid_until.map(|time| time.to_string()),
            status_as_of: decision.status_as_of.map(|time| time.to_string()),
            policy_revision: decision.policy_revision.as_ref().to_owned(),
            enforced: (!decision.enforced).then_some(false),
            granting_policies: decision.granting_policies,
        };
        Self {
            decision: decision.effect == Effect::Allow,
            context: EvaluatedContext::Decided(Box::new(context)),
        }
    }
}

/// Several policies may object under one code: their words stand below each other, the same ones once.
fn add(words: &mut BTreeMap<&'static str, String>, code: &'static str, more: &str) {
    let said = words.entry(code).or_default();
    if said.is_empty() {
        more.clone_into(said);
    } else if !said.split('\n').any(|line| line == more) {
        said.push('\n');
        said.push_str(more);
    }
}

impl From<Reason> for ReasonAnswer {
    fn from(reason: Reason) -> Self {
        Self {
            code: reason.code.as_str(),
            policy_id: reason.policy_id,
            reason_user: reason.reason_user,
            reason_admin: reason.reason_admin,
            would_pass_if: reason.would_pass_if,
            cite: reason.cite.as_deref().map(str::to_owned),
        }
    }
}

impl From<QuotaState> for QuotaAnswer {
    fn from(state: QuotaState) -> Self {
        Self {
            id: state.id,
            metric: state.metric,
            limit: number(state.limit),
            remaining: number(state.remaining),
            resets_at: state.resets_at.map(|time| time.to_string()),
        }
    }
}

/// Whole amounts without a fraction.
fn number(amount: Amount) -> Number {
    let (whole, rest) = (amount.millionths() / 1_000_000, amount.millionths() % 1_000_000);
    match i64::try_from(whole) {
        Ok(whole) if rest == 0 => whole.into(),
        // An amount is always finite.
        _ => Number::from_f64(amount.to_f64()).unwrap_or_else(|| 0.into()),
    }
}
