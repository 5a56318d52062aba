//! The keys that the gate trusts: a folder of JWKS files, one per issuer.
//!
//! A key belongs to one issuer and vouches for no other. Refuses private keys, keys of other
//! kinds, small-order points, and a `kid` that two keys share; a bad folder leaves the keys
//! in force as they are. A folder from which the last key set is gone trusts nobody.

pub mod jwks;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};

use crate::document::{Problem, Problems};
use crate::watch::steady_root;
pub use jwks::{KeySet, KeyState, PublicJwk};

/// The largest key set that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A key and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// The issuer that signs with it.
    pub issuer: Arc<str>,
    /// Its name in license headers.
    pub kid: Arc<str>,
    /// Where it stands in its life.
    pub state: KeyState,
    /// The key itself.
    pub key: VerifyingKey,
}

/// The keys of one moment.
#[derive(Debug, Default)]
pub struct Keys {
    by_kid: HashMap<Arc<str>, Vec<TrustedKey>>,
    sets: Vec<KeySet>,
    /// Tells one content of the folder from every other.
    fingerprint: [u8; 32],
}

impl Keys {
    /// Every key of that name, of whichever issuer.
    pub fn named(&self, kid: &str) -> &[TrustedKey] {
        self.by_kid.get(kid).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether exactly this key is still trusted, in a state that verifies.
    pub fn trusts(&self, key: &TrustedKey) -> bool {
        self.named(&key.kid)
            .iter()
            .any(|known| known.issuer == key.issuer && known.key == key.key && known.state.verifies())
    }

    /// Tells this content from every other: changes whenever a key or a state does.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// How many issuers there are.
    pub fn issuers(&self) -> usize {
        self.sets.len()
    }

    /// The names of the issuers.
    pub fn issuer_names(&self) -> Vec<String> {
        self.sets.iter().map(|set| set.issuer.clone()).collect()
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.by_kid.values().map(Vec::len).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.by_kid.is_empty()
    }

    /// The keys that are published: those of every issuer that are not retired (RFC 7517).
    pub fn published(&self) -> serde_json::Value {
        let keys = self.sets.iter().flat_map(|set| &set.keys).filter(|key| key.state.verifies());
        serde_json::json!({ "keys": keys.map(PublicJwk::published).collect::<Vec<_>>() })
    }

    fn of(files: &BTreeMap<PathBuf, String>) -> Result<Self, Problems> {
        let mut keys = Self::default();
        let mut problems = Vec::new();
        let mut hash = Sha256::new();
        for (path, text) in files {
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text);
            let origin = path.display().to_string();
            match KeySet::parse(&origin, text).and_then(|set| keys.add(&origin, set)) {
                Ok(()) => {}
                Err(more) => problems.extend(more),
            }
        }
        keys.fingerprint = hash.finalize().into();
        if problems.is_empty() { Ok(keys) } else { Err(Problems::from(problems)) }
    }

    fn add(&mut self, origin: &str, set: KeySet) -> Result<(), Problems> {
        let problem = |key: &str, message: String| Err(Problem::new(origin, message).under(key).into());
        if self.sets.iter().any(|other| other.issuer == set.issuer) {
            return problem("issuer", format!("`{}` has a key set already; one file per issuer", set.issuer));
        }
        let issuer: Arc<str> = set.issuer.as_str().into();
        for (position, jwk) in set.keys.iter().enumerate() {
            let key = jwk.decode().map_err(|error| {
                Problems::from(Problem::new(origin, error.to_string()).under(format!("keys[{position}].x")))
            })?;
            let kid: Arc<str> = jwk.kid.as_str().into();
            let named = self.by_kid.entry(kid.clone()).or_default();
            if named.iter().any(|other| other.issuer == issuer) {
                return problem(&format!("keys[{position}].kid"), format!("`{kid}` is there twice"));
            }
            named.push(TrustedKey { issuer: issuer.clone(), kid, state: jwk.state, key });
        }
        self.sets.push(set);
        Ok(())
    }
}

/// The keys in force, and how to replace them.
pub struct Keyring {
    folder: PathBuf,
    current: ArcSwap<Keys>,
    /// One reload at a time: a slow one must not overwrite the result of a later one.
    reloading: std::sync::Mutex<()>,
}

impl Keyring {
    /// Reads the key sets of `folder`.
    ///
    /// # Errors
    /// Everything that is wrong with them, and a folder without any.
    pub fn open(folder: &Path) -> Result<Self, Problems> {
        let keys = read(folder)?;
        if keys.issuers() == 0 {
            return Err(failed(folder, &"the folder has no key set (`*.json`); `tollgate keygen` makes one"));
        }
        let current = ArcSwap::from_pointee(keys);
        Ok(Self { folder: folder.to_owned(), current, reloading: std::sync::Mutex::new(()) })
    }

    /// The keys in force.
    pub fn current(&self) -> arc_swap::Guard<Arc<Keys>> {
        self.current.load()
    }

    /// The keys that are published; see [`Keys::published`].
    pub fn published(&self) -> serde_json::Value {
        self.current.load().published()
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Reads the folder again; on success its keys are in force, otherwise nothing changes.
    /// Tells whether there was anything new.
    ///
    /// # Errors
    /// Everything that is wrong with the new key sets.
    pub fn reload(&self) -> Result<bool, Problems> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let keys = read(&self.folder)?;
        if keys.fingerprint == self.current.load().fingerprint {
            return Ok(false);
        }
        self.current.store(Arc::new(keys));
        Ok(true)
    }
}

fn read(folder: &Path) -> Result<Keys, Problems> {
    let mut files = BTreeMap::new();
    let entries = std::fs::read_dir(steady_root(folder)).map_err(|error| {
        let remedy = "`licenses.keys` is a folder of key sets; `tollgate keygen` makes one";
        failed(folder, &format!("the folder cannot be read: {error}; {remedy}"))
    })?;
    for entry in entries {
        let path = entry.map_err(|error| failed(folder, &error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden || path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let size = std::fs::metadata(&path).map_err(|error| failed(&path, &error))?.len();
        if size > MAX_FILE_BYTES {
            return Err(failed(
                &path,
                &format!("the file has {size} bytes; a key set has at most {MAX_FILE_BYTES}"),
            ));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
        files.insert(path, text);
    }
    Keys::of(&files)
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Problems {
    Problem::new(path.display().to_string(), error.to_string()).into()
}
