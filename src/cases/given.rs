//! The state that a case is given: a store in memory, with what happened before the request.

use std::sync::Arc;

use serde_json::Value;

use super::run::{ISSUER, key, overlay, sample, signed};
use super::{Case, WhichCase};
use crate::config::Config;
use crate::decision::State;
use crate::domain::Clock;
use crate::domain::standing::{Standing, Target, Which};
use crate::domain::time::Timestamp;
use crate::keyring::PublicJwk;
use crate::store::redb::RedbStore;
use crate::store::{Acceptance, Change, Registered, StateStore, StoreError};

/// State and the store behind it.
pub(super) struct Given {
    pub(super) state: State,
    pub(super) store: Arc<dyn StateStore>,
}

impl Given {
    /// What the case says happened before.
    pub(super) async fn of(case: &Case, config: &Config) -> Result<Self, StoreError> {
        let store: Arc<dyn StateStore> = Arc::new(RedbStore::in_memory()?);
        let claims = overlay(sample(), &case.license.claims);
        let claim = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let kid = PublicJwk::of(&key(case.license.signed_by).verifying_key()).kid;
        if case.gate.registered {
            let license = Registered {
                id: claim("jti"),
                issuer: claim("iss"),
                assignee: claim("sub"),
                kid: kid.clone(),
                not_before: case.now,
                expires: Timestamp::MAX,
                token: signed(&case.license),
                registered_at: case.now,
                registered_by: "case".to_owned(),
            };
            store.register(&license).await?;
        }
        for terms_hash in case.gate.accepted.clone() {
            let (issuer, license) = (claim("iss"), claim("jti"));
            let accepted_by = "case".to_owned();
            store.accept(&Acceptance { issuer, license, terms_hash, accepted_by, at: case.now }).await?;
        }
        for given in &case.gate.standings {
            let which = match given.which {
                WhichCase::License => Which::License(claim("jti")),
                WhichCase::Key => Which::Key(kid.clone()),
                WhichCase::Assignee => Which::Assignee(claim("sub")),
                WhichCase::Issuer => Which::All,
            };
            let standing = Standing {
                target: Target { issuer: ISSUER.to_owned(), which },
                status: given.status,
                reason: "the case says so".to_owned(),
                actor: "case".to_owned(),
                since: case.now,
                revision: 0,
            };
            store.change(&Change { standing, from: given.status.reached_from() }).await?;
        }
        if let Some(time) = case.gate.state_time {
            store.feed(0, 1, time).await?;
        }
        let state = State::over(&store, config);
        let read_at = case.gate.state_read_at.unwrap_or(case.now);
        state.revocations.read(&Clock::of(move || read_at)).await?;
        Ok(Self { state, store })
    }
}
