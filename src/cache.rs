//! A cache bounded by the bytes of what it holds; the home of `moka`.
//!
//! Refuses to be a source of truth: whatever it forgets is computed again, and what it
//! remembers is looked at again by its owner where it can go stale.

use std::hash::Hash;
use std::sync::Arc;

/// Values by key, the most useful kept, never more than `capacity` bytes of them.
pub struct Cache<K, V> {
    entries: moka::sync::Cache<K, Arc<V>>,
}

/// What an entry costs beside its key and value: the cache's own bookkeeping, measured with the
/// gate's allocator and 50,000 to 200,000 entries.
const ENTRY_OVERHEAD: usize = 330;

impl<K, V> Cache<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    /// A cache of at most `capacity` bytes, where `weigh` tells the size of a value.
    pub fn bounded(capacity: u64, weigh: impl Fn(&V) -> usize + Send + Sync + 'static) -> Self {
        let weigher = move |_: &K, value: &Arc<V>| {
            u32::try_from(weigh(value) + size_of::<K>() + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        Self { entries: moka::sync::Cache::builder().max_capacity(capacity).weigher(weigher).build() }
    }

    /// Whether it remembers nothing, for it has no capacity.
    pub fn is_off(&self) -> bool {
        self.entries.policy().max_capacity() == Some(0)
    }

    /// What is remembered under `key`.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.entries.get(key)
    }

    /// Remembers `value`.
    pub fn put(&self, key: K, value: Arc<V>) {
        self.entries.insert(key, value);
    }

    /// The bytes held, once what is over the bound was let go.
    pub fn bytes(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}
