//! A slab whose keys tell a reused place from the one that was meant.

/// A place and its generation. Generations are unique per slab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) index: u32,
    pub(crate) generation: u32,
}

/// See the module.
pub(crate) struct Slab<T> {
    places: Vec<Option<(u32, T)>>,
    free: Vec<u32>,
    generation: u32,
}

impl<T> Slab<T> {
    pub(crate) fn new() -> Self {
        Self { places: Vec::new(), free: Vec::new(), generation: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Inserts what `make` builds from its key.
    pub(crate) fn insert(&mut self, make: impl FnOnce(SessionKey) -> T) -> SessionKey {
        self.generation = self.generation.wrapping_add(1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            (self.places.len() - 1) as u32
        });
        let key = SessionKey { index, generation: self.generation };
        self.places[index as usize] = Some((key.generation, make(key)));
        key
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut T> {
        match self.places.get_mut(key.index as usize) {
            Some(Some((generation, value))) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// By place alone: for lists that are kept in step with the slab.
    pub(crate) fn at_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut().map(|(_, value)| value)
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<T> {
        self.get_mut(key)?;
        let (_, value) = self.places[key.index as usize].take()?;
        self.free.push(key.index);
        Some(value)
    }

    pub(crate) fn keys(&self) -> Vec<SessionKey> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// All, by place.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (SessionKey, &T)> {
        self.places.iter().enumerate().filter_map(|(index, place)| {
            let (generation, value) = place.as_ref()?;
            Some((SessionKey { index: index as u32, generation: *generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reused_place_has_another_key() {
        let mut slab = Slab::new();
        let a = slab.insert(|_| 'a');
        assert_eq!(slab.remove(a), Some('a'));
        let b = slab.insert(|_| 'b');
        assert_eq!(a.index, b.index);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.get_mut(b), Some(&mut 'b'));
        assert_eq!(slab.len(), 1);
    }
}
