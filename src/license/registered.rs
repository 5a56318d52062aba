//! Licenses that are known by their id, and terms that were accepted: read from the store once, then
//! from memory.
//!
//! What is there is never replaced, so it may be remembered; what is not there is remembered for a moment,
//! and only until something is recorded. Refuses to take a store's silence for an answer.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::config;
use crate::store::{Acceptance, Registered, StateStore, StoreError};

/// The memory for what is not there.
const ABSENT: u64 = 1 << 20;

/// For how long it is remembered: the store that said so may have been behind what was known of it.
const ABSENT_FOR: Duration = Duration::from_secs(1);

/// The memory for acceptances.
const ACCEPTANCES: u64 = 8 << 20;

/// What is recorded of licenses.
pub struct Registry {
    store: Arc<dyn StateStore>,
    licenses: Cache<String, Registered>,
    acceptances: Cache<Name, Acceptance>,
    /// What was looked for in vain, with the number of records that there were.
    absent: Cache<Name, u64>,
}

/// What something is looked for by: an issuer, a license and a hash, or a license alone.
type Name = (String, String, String);

fn length(name: &Name) -> usize {
    name.0.len() + name.1.len() + name.2.len()
}

impl Registry {
    /// Reads from `store`, and remembers within the configured bounds.
    pub fn new(store: Arc<dyn StateStore>, config: &config::Licenses) -> Self {
        let text = |_: &String, registered: &Registered| {
            let texts = [&registered.id, &registered.issuer, &registered.assignee, &registered.kid];
            let texts: usize = texts.into_iter().map(String::len).sum();
            size_of::<Registered>() + texts + registered.token.len() + registered.registered_by.len()
        };
        Self {
            store,
            licenses: Cache::bounded(config.registered_cache.bytes(), text),
            acceptances: Cache::bounded(ACCEPTANCES, |name, acceptance: &Acceptance| {
                size_of::<Acceptance>() + 2 * length(name) + acceptance.accepted_by.len()
            }),
            absent: Cache::bounded_for(ABSENT, ABSENT_FOR, |name, _| 256 + length(name)),
        }
    }

    /// The registered license of this id. `records` tells how many records the store had when it was
    /// last read.
    ///
    /// # Errors
    /// When the store has to be asked, and cannot be.
    pub async fn license(&self, id: &str, records: u64) -> Result<Option<Arc<Registered>>, StoreError> {
        if let Some(license) = self.licenses.get(&id.to_owned()) {
            return Ok(Some(license));
        }
        let absent = (String::new(), id.to_owned(), String::new());
        if self.is_absent(&absent, records) {
            return Ok(None);
        }
        match self.store.license(id).await? {
            Some(license) => {
                let license = Arc::new(license);
                self.licenses.put(id.to_owned(), Arc::clone(&license));
                Ok(Some(license))
            }
            None => {
                self.absent.put(absent, Arc::new(records));
                Ok(None)
            }
        }
    }

    /// Who accepted the terms of this hash for this license, if anybody did.
    ///
    /// # Errors
    /// When the store has to be asked, and cannot be.
    pub async fn acceptance(
        &self,
        issuer: &str,
        license: &str,
        terms_hash: &str,
        records: u64,
    ) -> Result<Option<Arc<Acceptance>>, StoreError> {
        let key = (issuer.to_owned(), license.to_owned(), terms_hash.to_owned());
        if let Some(acceptance) = self.acceptances.get(&key) {
            return Ok(Some(acceptance));
        }
        if self.is_absent(&key, records) {
            return Ok(None);
        }
        match self.store.acceptance(issuer, license, terms_hash).await? {
            Some(acceptance) => {
                let acceptance = Arc::new(acceptance);
                self.acceptances.put(key, Arc::clone(&acceptance));
                Ok(Some(acceptance))
            }
            None => {
                self.absent.put(key, Arc::new(records));
                Ok(None)
            }
        }
    }

    /// The bytes of what is remembered of registered licenses.
    pub fn bytes(&self) -> u64 {
        self.licenses.bytes()
    }

    fn is_absent(&self, key: &Name, records: u64) -> bool {
        self.absent.get(key).is_some_and(|known| *known == records)
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
    }
}
