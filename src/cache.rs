//! A cache bounded by the bytes of what it holds; the home of `moka`.
//!
//! Refuses to be a source of truth: whatever it forgets is computed again, and what it
//! remembers is looked at again by its owner where it can go stale.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

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
    /// A cache of at most `capacity` bytes, where `weigh` tells the size of a value, and of what its key points to.
    pub fn bounded(capacity: u64, weigh: impl Fn(&K, &V) -> usize + Send + Sync + 'static) -> Self {
        Self::build(capacity, None, weigh)
    }

    /// The same, where a value is forgotten some time after it was put there, and the oldest first: none is worth
    /// more than another.
    pub fn bounded_for(
        capacity: u64,
        lives: Duration,
        weigh: impl Fn(&K, &V) -> usize + Send + Sync + 'static,
    ) -> Self {
        Self::build(capacity, Some(lives), weigh)
    }

    fn build(
        capacity: u64,
        lives: Option<Duration>,
        weigh: impl Fn(&K, &V) -> usize + Send + Sync + 'static,
    ) -> Self {
        let weigher = move |key: &K, value: &Arc<V>| {
            u32::try_from(weigh(key, value) + size_of::<K>() + ENTRY_OVERHEAD).unwrap_or(u32::MAX)
        };
        let builder = moka::sync::Cache::builder().max_capacity(capacity).weigher(weigher);
        let builder = lives.into_iter().fold(builder, |builder, lives| {
            builder.time_to_live(lives).eviction_policy(moka::policy::EvictionPolicy::lru())
        });
        Self { entries: builder.build() }
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

    /// Forgets what is remembered under `key`, and returns it: to one caller alone.
    pub fn take(&self, key: &K) -> Option<Arc<V>> {
        self.entries.remove(key)
    }

    /// The bytes held, once what is over the bound was let go.
    pub fn bytes(&self) -> u64 {
        self.entries.run_pending_tasks();
        self.entries.weighted_size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lives_for_a_time_makes_room_from_its_oldest_end() {
        let cache = Cache::<u32, u32>::bounded_for(100_000, Duration::from_secs(600), |_, _| 1_000);
        for number in 0..1_000 {
            cache.put(number, Arc::new(number));
        }
        cache.bytes();
        let kept: Vec<u32> = (0..1_000).filter(|number| cache.get(number).is_some()).collect();
        assert!(kept.len() > 50, "{}", kept.len());
        assert_eq!(kept, (1_000 - u32::try_from(kept.len()).unwrap()..1_000).collect::<Vec<_>>());
    }
}
