//! Remembers which tokens were verified and which were refused.
//!
//! Refuses to let one crowd out the other: they have memories of their own. A remembered
//! license counts only while its key is trusted; a remembered refusal only under the same keys.

use std::sync::Arc;

use super::verify::{Refusal, VerifiedLicense, digest, verify};
use crate::cache::Cache;
use crate::config;
use crate::domain::Code;
use crate::keyring::Keys;

/// A verified license with what its owner prepared from it.
#[derive(Debug)]
pub struct Known<T> {
    /// The license.
    pub license: VerifiedLicense,
    /// What was prepared, once.
    pub prepared: T,
}

struct Refused {
    keys: [u8; 32],
    refusal: Refusal,
}

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Verified before.
    Verified,
    /// Refused before.
    Refused,
    /// Looked at afresh.
    Fresh,
}

/// The licenses that this gate has seen.
pub struct Licenses<T> {
    verified: Cache<[u8; 32], Known<T>>,
    refused: Cache<[u8; 32], Refused>,
}

impl<T: Send + Sync + 'static> Licenses<T> {
    /// An empty memory within the configured bounds.
    pub fn new(config: &config::Licenses) -> Self {
        Self {
            verified: Cache::bounded(config.cache.bytes(), |_, known: &Known<T>| weigh(&known.license)),
            refused: Cache::bounded(config.rejected_cache.bytes(), |_, refused: &Refused| {
                size_of::<Refused>() + refused.refusal.detail.len()
            }),
        }
    }

    /// The license of a token, remembered or verified; `prepare` is called once for each.
    ///
    /// # Errors
    /// Why the token is refused, remembered or found out.
    pub fn resolve(
        &self,
        token: &str,
        keys: &Keys,
        prepare: impl FnOnce(&VerifiedLicense) -> Result<T, Refusal>,
    ) -> (Result<Arc<Known<T>>, Refusal>, Found) {
        if token.len() > super::jws::MAX_TOKEN_BYTES {
            // Too long to be worth a hash.
            let detail = format!("the token has {} bytes", token.len());
            return (Err(Refusal::new(Code::LicenseMalformed, detail)), Found::Fresh);
        }
        let digest = digest(token);
        if let Some(known) = self.verified.get(&digest)
            && keys.trusts(&known.license.key)
        {
            return (Ok(known), Found::Verified);
        }
        if let Some(refused) = self.refused.get(&digest)
            && refused.keys == *keys.fingerprint()
        {
            return (Err(refused.refusal.clone()), Found::Refused);
        }
        let fresh = verify(token, keys).and_then(|license| {
            let prepared = prepare(&license)?;
            Ok(Arc::new(Known { license, prepared }))
        });
        match &fresh {
            Ok(known) => self.verified.put(digest, known.clone()),
            Err(refusal) => {
                let refused = Refused { keys: *keys.fingerprint(), refusal: refusal.clone() };
                self.refused.put(digest, Arc::new(refused));
            }
        }
        (fresh, Found::Fresh)
    }

    /// The bytes of verified licenses and of refused tokens.
    pub fn bytes(&self) -> (u64, u64) {
        (self.verified.bytes(), self.refused.bytes())
    }
}

/// What a license costs in memory: mostly its typed terms and the same as Cedar values, whose sets
/// take about 350 bytes for each item, however short its name. Measured with the gate's allocator and
/// licenses of 1 to 1,500 datasets with names of 4 to 20 bytes (`benches/gate/memory.rs`): what is
/// reckoned is 1.0 to 1.25 times what they take. An eighth is added for the gaps that the allocator is left
/// with once old licenses make room for new ones.
fn weigh(license: &VerifiedLicense) -> usize {
    // A comma stands between two items; in a name it counts too, which errs on the safe side. An
    // object is a map, which takes more than an item of a set.
    let json = serde_json::to_vec(&license.claims).unwrap_or_default();
    let items = json.iter().map(|byte| match byte {
        b',' => 1,
        b'{' => 2,
        _ => 0,
    });
    let fresh = 3_000 + items.sum::<usize>() * 350 + json.len() * 2;
    fresh + fresh / 8
}
