//! A bounded table that forgets what is old.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

/// Keeps what was noted lately: at most `max` entries, none older than `age`.
///
/// Two generations instead of an order of use: when the young one is full it becomes the old one, and the old one goes. So noting
/// costs the same however many strangers knock, and at least `max / 2` of the latest entries are always there.
#[derive(Debug)]
pub struct Recent<K, V> {
    young: HashMap<K, (V, Duration)>,
    old: HashMap<K, (V, Duration)>,
    max: usize,
    age: Duration,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    #[must_use]
    pub fn new(max: usize, age: Duration) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), max, age }
    }

    /// Notes `value` under `key`, in place of what was there.
    pub fn note(&mut self, now: Duration, key: K, value: V) -> &mut V {
        if self.young.len() >= self.max / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        &mut self.young.entry(key).insert_entry((value, now)).into_mut().0
    }

    /// What was noted last under `key`, unless that is too long ago.
    #[must_use]
    pub fn find(&self, now: Duration, key: &K) -> Option<&V> {
        let (value, noted) = self.young.get(key).or_else(|| self.old.get(key))?;
        (now.saturating_sub(*noted) <= self.age).then_some(value)
    }

    /// The value under `key`, noted anew, for changing; `new` makes one where none is.
    pub fn renew(&mut self, now: Duration, key: K, new: impl FnOnce() -> V) -> &mut V {
        let known = self.young.remove(&key).or_else(|| self.old.remove(&key));
        let known = known.filter(|(_, noted)| now.saturating_sub(*noted) <= self.age);
        self.note(now, key, known.map_or_else(new, |(value, _)| value))
    }

    /// Every entry, old ones too.
    pub fn values_mut(&mut self) -> impl Iterator<Item = (&K, &mut V)> {
        self.young.iter_mut().chain(self.old.iter_mut()).map(|(key, (value, _))| (key, value))
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_forgets_by_age() {
        let mut recent = Recent::new(10, at(60));
        recent.note(at(0), 'a', 1);
        assert_eq!(recent.find(at(60), &'a'), Some(&1));
        assert_eq!(recent.find(at(61), &'a'), None);
        *recent.renew(at(61), 'a', || 5) += 1;
        assert_eq!(recent.find(at(100), &'a'), Some(&6));
        *recent.renew(at(100), 'a', || 5) += 1;
        assert_eq!(recent.find(at(160), &'a'), Some(&7));
    }

    #[test]
    fn it_is_bounded_and_keeps_the_latest() {
        let mut recent = Recent::new(100, at(60));
        for key in 0..100_000 {
            recent.note(at(0), key, ());
            assert!(recent.len() <= 100);
        }
        assert!((99_950..100_000).all(|key| recent.find(at(0), &key).is_some()));
    }

    #[test]
    fn an_entry_that_is_used_outlives_the_strangers() {
        let mut recent = Recent::new(100, at(60));
        for key in 1..10_000 {
            *recent.renew(at(0), 0, || 0) += 1;
            recent.renew(at(0), key, || 0);
        }
        assert_eq!(recent.find(at(0), &0), Some(&9_999));
    }
}
