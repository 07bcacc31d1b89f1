//! Filters with wildcards in a tree of levels: what has subscribed to them is found by walking a topic's levels.
//!
//! Invariant: a place without a value and without children is not kept. Must not know: what the values are.

use std::collections::HashMap;

/// Values by filter. Filters and topics are valid by [`crate::topic`].
#[derive(Debug)]
pub struct TopicTree<T> {
    root: Level<T>,
    len: usize,
}

#[derive(Debug)]
struct Level<T> {
    /// Of the filter that ends here.
    here: Option<T>,
    /// Of the filter that ends here with `#`.
    rest: Option<T>,
    names: HashMap<Box<str>, Self>,
    any: Option<Box<Self>>,
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self { here: None, rest: None, names: HashMap::new(), any: None }
    }
}

impl<T> Default for TopicTree<T> {
    fn default() -> Self {
        Self { root: Level::default(), len: 0 }
    }
}

impl<T> Level<T> {
    fn is_empty(&self) -> bool {
        self.here.is_none() && self.rest.is_none() && self.names.is_empty() && self.any.is_none()
    }

    fn visit<'a>(&'a self, mut levels: std::str::Split<'_, char>, visit: &mut impl FnMut(&'a T)) {
        let Some(level) = levels.next() else {
            // `a/#` matches `a` too.
            self.here.iter().chain(&self.rest).for_each(visit);
            return;
        };
        if let Some(value) = &self.rest {
            visit(value);
        }
        if let Some(next) = self.names.get(level) {
            next.visit(levels.clone(), visit);
        }
        if let Some(next) = &self.any {
            next.visit(levels, visit);
        }
    }

    fn remove(&mut self, mut levels: std::str::Split<'_, char>) -> Option<T> {
        match levels.next() {
            None => self.here.take(),
            Some("#") => self.rest.take(),
            Some("+") => {
                let next = self.any.as_mut()?;
                let removed = next.remove(levels);
                self.any.take_if(|next| next.is_empty());
                removed
            }
            Some(name) => {
                let next = self.names.get_mut(name)?;
                let removed = next.remove(levels);
                if next.is_empty() {
                    self.names.remove(name);
                }
                removed
            }
        }
    }
}

impl<T> TopicTree<T> {
    /// Whether it has no filter.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many filters have a value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value of a filter.
    pub fn get_mut(&mut self, filter: &str) -> Option<&mut T> {
        let mut at = &mut self.root;
        for level in filter.split('/') {
            at = match level {
                "#" => return at.rest.as_mut(),
                "+" => at.any.as_deref_mut()?,
                name => at.names.get_mut(name)?,
            };
        }
        at.here.as_mut()
    }

    /// The value of a filter, made if there is none.
    pub fn entry(&mut self, filter: &str) -> &mut T
    where
        T: Default,
    {
        let mut at = &mut self.root;
        let mut rest = false;
        for level in filter.split('/') {
            at = match level {
                "#" => {
                    rest = true;
                    break;
                }
                "+" => at.any.get_or_insert_default(),
                name => at.names.entry(name.into()).or_default(),
            };
        }
        let slot = if rest { &mut at.rest } else { &mut at.here };
        self.len += usize::from(slot.is_none());
        slot.get_or_insert_default()
    }

    /// Takes a filter out.
    pub fn remove(&mut self, filter: &str) -> Option<T> {
        let removed = self.root.remove(filter.split('/'));
        self.len -= usize::from(removed.is_some());
        removed
    }

    /// Visits the values of all filters that match a topic.
    pub fn matches<'a>(&'a self, topic: &str, mut visit: impl FnMut(&'a T)) {
        if self.len == 0 {
            return;
        }
        let levels = topic.split('/');
        if topic.starts_with('$') {
            // MQTT-4.7.2-1: no wildcard stands for a first level with `$`.
            let mut levels = levels;
            if let Some(next) = levels.next().and_then(|level| self.root.names.get(level)) {
                next.visit(levels, &mut visit);
            }
            return;
        }
        self.root.visit(levels, &mut visit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic;
    use proptest::prelude::*;

    fn found(tree: &TopicTree<String>, topic: &str) -> Vec<String> {
        let mut found = Vec::new();
        tree.matches(topic, |filter| found.push(filter.clone()));
        found.sort();
        found
    }

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "", "$x"])
    }

    fn filter() -> impl Strategy<Value = String> {
        let part = prop_oneof![3 => level().boxed(), 2 => Just("+").boxed()];
        (prop::collection::vec(part, 1..4), any::<bool>()).prop_map(|(mut levels, rest)| {
            if rest {
                levels.push("#");
            }
            levels.join("/")
        })
    }

    proptest! {
        #[test]
        fn it_finds_what_matches(
            filters in prop::collection::btree_set(filter(), 0..12),
            gone in prop::collection::btree_set(filter(), 0..6),
            topics in prop::collection::vec(prop::collection::vec(level(), 1..5), 1..8),
        ) {
            let mut tree = TopicTree::default();
            let filters: Vec<String> = filters.into_iter().filter(|f| !f.is_empty()).collect();
            for filter in &filters {
                *tree.entry(filter) = filter.clone();
            }
            let left: Vec<&String> = filters.iter().filter(|f| !gone.contains(*f)).collect();
            for filter in &gone {
                prop_assert_eq!(tree.remove(filter).is_some(), filters.contains(filter));
            }
            prop_assert_eq!(tree.len(), left.len());
            for levels in topics {
                let topic = levels.join("/");
                let matching = left.iter().copied().filter(|f| topic::matches(f, &topic));
                let mut expected: Vec<String> = matching.cloned().collect();
                expected.sort();
                prop_assert_eq!(found(&tree, &topic), expected, "{}", topic);
            }
            for filter in left {
                prop_assert_eq!(tree.remove(filter), Some(filter.clone()));
            }
            prop_assert!(tree.is_empty() && tree.root.is_empty());
        }
    }
}
