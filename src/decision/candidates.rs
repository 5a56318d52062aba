//! Which users, datasets or actions a license allows: every candidate is decided, and those that are
//! allowed are named.
//!
//! Refuses to take anything of a quota, to leave records, since no use of data is decided, and to look
//! at candidates without end.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Pdp;
use crate::domain::time::Timestamp;
use crate::domain::{Action, CheckRequest, Clock, Code, Effect};
use crate::license::Claims;

/// The most candidates that are decided at once.
const MOST: usize = 1_000;

/// The part of a question that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sought {
    /// Who.
    Subject,
    /// To which data.
    Resource,
    /// What may be done.
    Action,
}

/// Which candidates are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How many are left out at the beginning.
    pub from: usize,
    /// How many may be named.
    pub limit: usize,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What is allowed.
    pub names: Vec<String>,
    /// Where to go on; `None` where every candidate was looked at.
    pub next: Option<usize>,
    /// Whether everything that is allowed is among the candidates.
    pub is_exhaustive: bool,
    /// Why candidates were left out.
    pub codes: BTreeSet<Code>,
    /// The revision of policies and catalog that was looked through.
    pub policy_revision: Arc<str>,
    /// Until when revocations are known, where they are known well enough.
    pub status_as_of: Option<Timestamp>,
}

impl Pdp {
    /// Names what `question` allows where the part that is `sought` is left open. Candidates are those
    /// that the license and the catalog name, in an order that stays for as long as both do.
    pub async fn search(&self, question: &CheckRequest, sought: Sought, span: Span, clock: &Clock) -> Found {
        let policies = Arc::clone(&self.policies.current());
        let license = match self.look_up(question).await {
            Ok(presented) => self.verify_token(presented.token(), &policies),
            Err(reason) => Err(reason),
        };
        let mut found = Found {
            names: Vec::new(),
            next: None,
            is_exhaustive: true,
            codes: BTreeSet::new(),
            policy_revision: policies.revision().clone(),
            status_as_of: self.state.revocations.as_of(clock.now()).ok(),
        };
        let license = match license {
            Ok(license) => license,
            Err(reason) => {
                found.codes.insert(reason.code);
                return found;
            }
        };
        let claims = &license.license.claims;
        let candidates = candidates(sought, claims, policies.datasets());
        found.is_exhaustive = match sought {
            Sought::Subject => claims.terms.users.is_some(),
            // A license covers what is below its datasets, whether or not the catalog knows it.
            Sought::Resource => false,
            Sought::Action => true,
        };
        let mut looked_at = span.from;
        let mut rehearsal = CheckRequest { dry_run: true, ..question.clone() };
        for name in candidates.iter().skip(span.from).take(MOST) {
            if found.names.len() == span.limit {
                break;
            }
            let open = match sought {
                Sought::Subject => &mut rehearsal.subject.id,
                Sought::Resource => &mut rehearsal.resource.id,
                Sought::Action => &mut rehearsal.action,
            };
            (*name).clone_into(open);
            let decision = self.judge(&rehearsal, clock.now()).await.decision;
            if decision.effect == Effect::Allow {
                found.names.push((*name).to_owned());
            }
            found.codes.extend(decision.reasons.iter().map(|reason| reason.code));
            looked_at += 1;
            // As in a batch: nothing in a decision waits.
            tokio::task::coop::consume_budget().await;
        }
        found.next = (looked_at < candidates.len()).then_some(looked_at);
        found
    }
}

fn candidates<'a>(sought: Sought, claims: &'a Claims, catalog: &'a [String]) -> Vec<&'a str> {
    let terms = &claims.terms;
    match sought {
        Sought::Subject => terms.users.iter().flatten().map(String::as_str).collect(),
        Sought::Action => Action::ALL.map(Action::as_str).to_vec(),
        Sought::Resource => {
            let own: BTreeSet<&str> = terms.datasets.iter().map(|path| path.as_str()).collect();
            let others = catalog.iter().map(String::as_str).filter(|path| !own.contains(path));
            own.iter().copied().chain(others).collect()
        }
    }
}
