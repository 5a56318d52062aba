//! What went wrong with the database, in words, and whether one may try again.
//!
//! Refuses to repeat what was stored or what was sent: only the database's own words are passed on.

use std::error::Error as _;

use deadpool_postgres::tokio_postgres::Error;

use crate::store::StoreError;

/// Why a question was not answered.
#[derive(Debug)]
pub(super) struct Fault {
    /// What the caller is told.
    pub(super) error: StoreError,
    /// Whether it is certain that nothing was changed, so that anything may be tried again.
    pub(super) undone: bool,
    /// Whether the connection is of no more use.
    pub(super) spoiled: bool,
}

impl Fault {
    /// The question was not even asked.
    pub(super) fn before(error: StoreError) -> Self {
        Self { error, undone: true, spoiled: false }
    }

    /// The answer did not come, or was lost.
    pub(super) fn unanswered(words: String) -> Self {
        Self { error: StoreError::Unavailable(words), undone: false, spoiled: true }
    }

    /// The database has what this version never wrote.
    pub(super) fn damaged(words: impl Into<String>) -> Self {
        Self { error: StoreError::Damaged(words.into()), undone: false, spoiled: false }
    }

    /// Nothing can be written here any more: another server took over.
    pub(super) fn demoted() -> Self {
        let words = "the server takes no writes any more".to_owned();
        Self { error: StoreError::Unavailable(words), undone: true, spoiled: true }
    }

    /// Whether asking again may help, and cannot do something twice.
    pub(super) fn allows_repeating(&self, repeatable: bool) -> bool {
        matches!(self.error, StoreError::Unavailable(_)) && (self.undone || repeatable)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let words = words(&error);
        let Some(code) = error.code() else {
            return Self::unanswered(words);
        };
        let code = code.code();
        let of = |classes: &[&str]| classes.iter().any(|class| code.starts_with(class));
        // 25006: the server became a standby. 26000, 0A000: what was prepared is gone, or no longer
        // fits the tables. A new connection heals all three.
        let stale = of(&["25006", "26000", "0A000"]);
        // 40: a deadlock, or a conflict of transactions. 23505: the same lease was taken at the same
        // moment, by a call that is repeated while it runs.
        let rolled_back = (of(&["40"]) && code != "40003") || code == "23505";
        let error = match code {
            _ if rolled_back || stale => StoreError::Unavailable(words),
            "42501" => StoreError::Unusable(words),
            _ if of(&["22", "23", "42", "54", "XX001", "XX002"]) => StoreError::Damaged(words),
            _ => StoreError::Unavailable(words),
        };
        Self { error, undone: stale || rolled_back, spoiled: stale || of(&["08", "57P"]) }
    }
}

/// What the client or the database says, with all causes. The details of the database are left out:
/// they quote what is stored.
pub(super) fn words(error: &Error) -> String {
    if let Some(refusal) = error.as_db_error() {
        let hint = refusal.hint().map(|hint| format!("; {hint}")).unwrap_or_default();
        return format!("{} ({}){hint}", refusal.message(), refusal.code().code());
    }
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

/// Whether the database can never be used as it is configured, however often one tries.
pub(super) fn is_final(error: &Error) -> bool {
    if let Some(code) = error.code() {
        // A wrong user or password, an unknown database, a missing permission or schema.
        return ["28", "3D", "3F", "42"].iter().any(|class| code.code().starts_with(class));
    }
    let reported = error.to_string();
    let cause = error.source();
    // A handshake that was cut may succeed tomorrow; a certificate that nobody vouches for will not.
    let cut = cause
        .and_then(|cause| cause.downcast_ref::<std::io::Error>())
        .is_some_and(|cause| cause.get_ref().is_none_or(|inner| !inner.is::<rustls::Error>()));
    let settings = ["invalid configuration", "authentication error"].contains(&reported.as_str());
    settings || (reported == "error performing TLS handshake" && !cut)
}
