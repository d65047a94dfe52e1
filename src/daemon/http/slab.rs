//! Things by a small number that stays theirs.

/// A table whose free places are used again.
#[derive(Debug)]
pub(super) struct Slab<T> {
    /// Boxed: growing moves pointers, not half a kilobyte each.
    entries: Vec<Option<Box<T>>>,
    free: Vec<usize>,
    count: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), count: 0 }
    }
}

impl<T> Slab<T> {
    /// The key that the next [`Slab::insert`] is to use.
    pub fn vacant_key(&self) -> usize {
        self.free.last().copied().unwrap_or(self.entries.len())
    }

    pub fn insert(&mut self, key: usize, entry: T) {
        if self.free.last() == Some(&key) {
            self.free.pop();
        } else if key == self.entries.len() {
            self.entries.push(None);
        }
        if let Some(place) = self.entries.get_mut(key) {
            *place = Some(Box::new(entry));
            self.count += 1;
        }
    }

    pub fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.entries.get_mut(key)?.as_deref_mut()
    }

    pub fn remove(&mut self, key: usize) -> Option<Box<T>> {
        let entry = self.entries.get_mut(key)?.take()?;
        self.free.push(key);
        self.count -= 1;
        Some(entry)
    }

    pub const fn len(&self) -> usize {
        self.count
    }

    pub fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.entries.iter().enumerate().filter_map(|(key, entry)| Some((key, entry.as_deref()?)))
    }
}
