//! Administration: licenses are registered, suspended, revoked and reinstated, terms accepted, usage read.
//!
//! Each act is judged by the policies about administration, done, recorded, and only then answered.
//! Refuses acts of operators that no policy permits, and to bring back what was revoked.

mod act;
mod changes;
pub mod operators;
mod usage;

use std::sync::Arc;

use crate::audit::Writer;
use crate::decision::State;
use crate::domain::standing::{Standing, Status, Target, Which};
use crate::domain::{Clock, Reason};
use crate::keyring::Keyring;
use crate::license::verify::verify;
use crate::policy::Policies;
use crate::policy::administration::Act;
use crate::revocation::Subject;
use crate::store::{
    Acceptance, Change, Changed, LicenseFilter, Registered, Registration, StateStore, StoreError,
};

pub use changes::Changes;
pub use operators::{Operator, Operators};
pub use usage::{UsageReader, UsageWindow};

/// The longest reason, in bytes.
const MAX_REASON: usize = 1024;

/// The longest name of whoever accepts terms, in bytes.
const MAX_NAME: usize = 256;

/// How many licenses are read at once, and how many at most for one page.
const READ_AT_ONCE: u32 = 500;
const READ_AT_MOST: usize = 10_000;

/// Why an act was not done, or is not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AdminError {
    /// No policy permits it.
    #[error("{0}")]
    Forbidden(String),
    /// A field is missing or malformed.
    #[error("`{field}` {problem}")]
    Invalid {
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The license is refused, as a check would refuse it.
    #[error("{}: {}", .0.code, .0.reason_admin)]
    Refused(Box<Reason>),
    /// There is no such license.
    #[error("no license `{0}` is registered")]
    Unknown(String),
    /// Another license is registered under the id.
    #[error(
        "another license is registered under the id `{0}`; ids are unique, and licenses are not replaced: issue it \
         with another `id`"
    )]
    Taken(String),
    /// It stands in a way from which this does not lead anywhere.
    #[error("{0}")]
    Stands(String),
    /// The state cannot be reached.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is known of the state is too old, or clocks cannot be trusted.
    #[error("{}: {}", .0.code, .0.reason_admin)]
    Stale(Box<Reason>),
    /// The act cannot be recorded; it may be done, and may be asked for again.
    #[error("the act may have been done, and cannot be recorded: {0}")]
    Unrecorded(String),
}

/// What administers the licenses of a gate.
pub struct Administration {
    gate: Arc<str>,
    store: Arc<dyn StateStore>,
    state: State,
    keyring: Arc<Keyring>,
    policies: Arc<Policies>,
    audit: Writer,
    clock: Clock,
}

/// A registered license and how it stands.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The license.
    pub license: Registered,
    /// Everything that stands against it.
    pub standings: Vec<Arc<Standing>>,
}

impl Listed {
    /// The strictest status.
    pub fn status(&self) -> Status {
        self.standings.iter().map(|standing| standing.status).max().unwrap_or(Status::Valid)
    }
}

/// Which licenses are listed.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// What the store knows to look for.
    pub filter: LicenseFilter,
    /// Only of this status.
    pub status: Option<Status>,
    /// Those after this id.
    pub after: String,
    /// The most of them.
    pub size: usize,
}

impl Administration {
    /// Administers what is kept in `store`, which `state` reads.
    pub fn new(
        gate: &str,
        store: Arc<dyn StateStore>,
        state: State,
        keyring: Arc<Keyring>,
        policies: Arc<Policies>,
        audit: Writer,
        clock: Clock,
    ) -> Self {
        Self { gate: gate.into(), store, state, keyring, policies, audit, clock }
    }

    /// Registers the license of a token. Says whether it was not registered before.
    ///
    /// # Errors
    /// When the token is not one of a trusted issuer, or its id is taken.
    pub async fn register(&self, by: &Operator, token: &str) -> Result<(Listed, bool), AdminError> {
        if token.is_empty() {
            return Err(invalid("token", "is missing"));
        }
        let keys = self.keyring.current();
        let license =
            verify(token, &keys).map_err(|refusal| AdminError::Refused(Box::new(refusal.reason())))?;
        drop(keys);
        let claims = &license.claims;
        let target = Target { issuer: claims.iss.clone(), which: Which::License(claims.jti.clone()) };
        let registered = Registered {
            id: claims.jti.clone(),
            issuer: claims.iss.clone(),
            assignee: claims.sub.clone(),
            kid: license.key.kid.to_string(),
            not_before: claims.nbf,
            expires: claims.exp,
            token: token.to_owned(),
            registered_at: self.clock.now(),
            registered_by: by.name.clone(),
        };
        let done = self.judge(by, "RegisterLicense", Some(&target));
        let done = match done {
            Ok(()) => self.put(registered).await,
            Err(error) => Err(error),
        };
        self.record(by, "RegisterLicense", &target, "", &done).await?;
        let (license, created) = done?;
        Ok((self.listed(license), created))
    }

    async fn put(&self, license: Registered) -> Result<(Registered, bool), AdminError> {
        let (registered, created) = match self.store.register(&license).await? {
            Registration::Created => (license, true),
            Registration::Present(present) if present.token == license.token => (present, false),
            Registration::Present(present) => return Err(AdminError::Taken(present.id)),
        };
        // So that a check by its id finds it at once, also where it was registered before and not read then.
        self.state.revocations.read(&self.clock).await?;
        Ok((registered, created))
    }

    /// The registered license of this id.
    ///
    /// # Errors
    /// When there is none.
    pub async fn get(&self, by: &Operator, id: &str) -> Result<Listed, AdminError> {
        if id.is_empty() {
            return Err(invalid("license_id", "is missing"));
        }
        let license = self.store.license(id).await?.ok_or_else(|| AdminError::Unknown(id.to_owned()))?;
        let target = Target { issuer: license.issuer.clone(), which: Which::License(id.to_owned()) };
        self.judge(by, "GetLicense", Some(&target))?;
        Ok(self.listed(license))
    }

    /// A page of registered licenses, and where the next one begins.
    ///
    /// # Errors
    /// When it is not permitted, or the store cannot be read.
    pub async fn list(
        &self,
        by: &Operator,
        listing: &Listing,
    ) -> Result<(Vec<Listed>, Option<String>), AdminError> {
        self.judge_all(by, "ListLicenses", listing.filter.issuer.as_deref())?;
        let (mut page, mut after, mut read) = (Vec::new(), listing.after.clone(), 0);
        loop {
            let licenses = self.store.licenses(&listing.filter, &after, READ_AT_ONCE).await?;
            let last = licenses.len() < usize::try_from(READ_AT_ONCE).unwrap_or(usize::MAX);
            read += licenses.len();
            for license in licenses {
                after.clone_from(&license.id);
                let listed = self.listed(license);
                if listing.status.is_none_or(|status| status == listed.status()) {
                    page.push(listed);
                }
                if page.len() == listing.size {
                    return Ok((page, Some(after)));
                }
            }
            if last {
                return Ok((page, None));
            }
            if read >= READ_AT_MOST {
                return Ok((page, Some(after)));
            }
        }
    }

    /// Makes a target stand in a status.
    ///
    /// # Errors
    /// When it stands in a way from which that cannot be reached.
    pub async fn change(
        &self,
        by: &Operator,
        target: &Target,
        status: Status,
        reason: &str,
    ) -> Result<Standing, AdminError> {
        let reason = reason.trim();
        if reason.is_empty() || reason.len() > MAX_REASON {
            return Err(invalid("reason", "must say why, in 1 to 1,024 bytes; it is kept and shown"));
        }
        let act = match status {
            Status::Valid => "ReinstateLicense",
            Status::Suspended => "SuspendLicense",
            Status::Revoked => "RevokeLicense",
        };
        let done = match self.judge(by, act, Some(target)) {
            Ok(()) => self.make(by, target, status, reason).await,
            Err(error) => Err(error),
        };
        self.record(by, act, target, reason, &done).await?;
        done
    }

    async fn make(
        &self,
        by: &Operator,
        target: &Target,
        status: Status,
        reason: &str,
    ) -> Result<Standing, AdminError> {
        let standing = Standing {
            target: target.clone(),
            status,
            reason: reason.to_owned(),
            actor: by.name.clone(),
            since: self.clock.now(),
            revision: 0,
        };
        let change = Change { standing: standing.clone(), from: status.reached_from() };
        match self.state.revocations.make(&change, &self.clock).await? {
            Changed::Applied(revision) => Ok(Standing { revision, ..standing }),
            // Asked for again: how it came to stand so stays.
            Changed::Refused(known) if known.status == status => Ok(known),
            Changed::Refused(known) => {
                let Standing { target, status: known, .. } = known;
                Err(AdminError::Stands(match known {
                    Status::Revoked => format!("{target} is REVOKED, and nothing lifts a revocation"),
                    _ => format!("{target} is {known}, and cannot become {status}"),
                }))
            }
            Changed::Unknown => Err(AdminError::Stands(format!(
                "{target} is VALID; only what is suspended can be reinstated"
            ))),
        }
    }

    /// Records that somebody accepted the terms of a license. Says whether it was not recorded before.
    ///
    /// # Errors
    /// When a field is missing, or a registered license asks for other terms.
    pub async fn accept(
        &self,
        by: &Operator,
        target: &Target,
        terms_hash: &str,
        accepted_by: &str,
    ) -> Result<bool, AdminError> {
        if terms_hash.is_empty() || terms_hash.len() > MAX_NAME {
            return Err(invalid("terms_hash", "must be the `terms_hash` that the license asks for"));
        }
        if accepted_by.is_empty() || accepted_by.len() > MAX_NAME {
            return Err(invalid("accepted_by", "must name who accepted, in 1 to 256 bytes"));
        }
        let acceptance = Acceptance {
            issuer: target.issuer.clone(),
            license: target.which.id().to_owned(),
            terms_hash: terms_hash.to_owned(),
            accepted_by: accepted_by.to_owned(),
            at: self.clock.now(),
        };
        let done = match self.judge(by, "AcceptTerms", Some(target)) {
            Ok(()) => self.put_acceptance(target, &acceptance).await,
            Err(error) => Err(error),
        };
        let read = match done {
            // Also where it was accepted before, and not read then.
            Ok(_) => self.state.revocations.read(&self.clock).await.map(drop),
            Err(_) => Ok(()),
        };
        // Also where it cannot be read: it was done.
        let words = format!("terms `{terms_hash}` accepted by `{accepted_by}`");
        self.record(by, "AcceptTerms", target, &words, &done).await?;
        read?;
        done
    }

    async fn put_acceptance(&self, target: &Target, acceptance: &Acceptance) -> Result<bool, AdminError> {
        match self.asked_for(target).await? {
            Some(asked) if asked != acceptance.terms_hash => {
                Err(invalid("terms_hash", &format!("is not what the license asks for, `{asked}`")))
            }
            _ => Ok(self.store.accept(acceptance).await?),
        }
    }

    /// The hash of the terms that a license asks for, where it is registered and can be read.
    async fn asked_for(&self, target: &Target) -> Result<Option<String>, AdminError> {
        let registered = self.store.license(target.which.id()).await?;
        let Some(registered) = registered.filter(|license| license.issuer == target.issuer) else {
            return Ok(None);
        };
        let license = verify(&registered.token, &self.keyring.current()).ok();
        Ok(license.and_then(|license| license.claims.terms.acceptance.map(|asked| asked.terms_hash)))
    }

    /// What a target is meant to be, where its issuer is left out.
    ///
    /// # Errors
    /// When the gate cannot tell, or does not know the issuer.
    pub async fn target(&self, issuer: &str, which: Which) -> Result<Target, AdminError> {
        if which != Which::All && (which.id().is_empty() || which.id().len() > MAX_NAME) {
            return Err(invalid("target", "names nothing, or something of more than 256 bytes"));
        }
        let known = self.keyring.current().issuer_names();
        let issuer = match (&which, known.as_slice()) {
            (_, _) if !issuer.is_empty() => issuer.to_owned(),
            (_, [only]) => only.clone(),
            (Which::License(id), _) => match self.store.license(id).await? {
                Some(license) => license.issuer,
                None => return Err(invalid("issuer", &which_issuer(&known))),
            },
            _ => return Err(invalid("issuer", &which_issuer(&known))),
        };
        if !known.contains(&issuer) {
            return Err(invalid("issuer", &format!("is `{issuer}`, and {}", which_issuer(&known))));
        }
        Ok(Target { issuer, which })
    }

    fn listed(&self, license: Registered) -> Listed {
        let subject = Subject {
            issuer: &license.issuer,
            license: &license.id,
            kid: &license.kid,
            assignee: &license.assignee,
        };
        let standings = self.state.revocations.against(subject);
        Listed { license, standings }
    }

    fn judge(&self, by: &Operator, name: &str, target: Option<&Target>) -> Result<(), AdminError> {
        let act = Act {
            operator: &by.name,
            scope: by.scope.as_str(),
            name,
            issuer: target.map(|target| target.issuer.as_str()),
            about: target.map(|target| (target.which.kind(), target.which.id())),
        };
        self.permit(act)
    }

    fn judge_all(&self, by: &Operator, name: &str, issuer: Option<&str>) -> Result<(), AdminError> {
        self.permit(Act { operator: &by.name, scope: by.scope.as_str(), name, issuer, about: None })
    }

    fn permit(&self, act: Act<'_>) -> Result<(), AdminError> {
        let judged = self.policies.current().may_administer(act);
        judged.map_err(|forbidden| AdminError::Forbidden(forbidden.to_string()))
    }
}

impl std::fmt::Debug for Administration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Administration")
    }
}

fn invalid(field: &'static str, problem: &str) -> AdminError {
    AdminError::Invalid { field, problem: problem.to_owned() }
}

fn which_issuer(known: &[String]) -> String {
    format!("must be one of the trusted issuers: {known:?}")
}
