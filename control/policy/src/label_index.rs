//! Which selectors may match some labels? Those that are filed under one of them, without asking the others.

use model::{Asked, LabelSelector, Labels};

use crate::hash::Map;

/// Selectors, each filed under something that it cannot match without.
#[derive(Debug)]
pub(crate) struct LabelIndex<T> {
    by_key: Map<Box<str>, OfKey<T>>,
    /// Those that need no label.
    others: Vec<T>,
}

#[derive(Debug)]
struct OfKey<T> {
    any: Vec<T>,
    by_value: Map<Box<str>, Vec<T>>,
}

/// Where a selector is filed.
enum Place<'a> {
    Values(&'a str, &'a [Box<str>]),
    Key(&'a str),
    Other,
}

impl<T> Default for LabelIndex<T> {
    fn default() -> Self {
        Self { by_key: Map::default(), others: Vec::new() }
    }
}

impl<T> Default for OfKey<T> {
    fn default() -> Self {
        Self { any: Vec::new(), by_value: Map::default() }
    }
}

impl<T: Copy + Eq> LabelIndex<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_key.is_empty() && self.others.is_empty()
    }

    /// Files `item` under `selector`.
    pub(crate) fn insert(&mut self, selector: &LabelSelector, item: T) {
        match place(selector) {
            Place::Other => self.others.push(item),
            Place::Key(key) => self.by_key.entry(key.into()).or_default().any.push(item),
            Place::Values(key, values) => {
                let by_value = &mut self.by_key.entry(key.into()).or_default().by_value;
                values.iter().for_each(|value| by_value.entry(value.clone()).or_default().push(item));
            }
        }
    }

    /// Takes out what [`LabelIndex::insert`] filed.
    pub(crate) fn remove(&mut self, selector: &LabelSelector, item: T) {
        let key = match place(selector) {
            Place::Other => return take(&mut self.others, item),
            Place::Key(key) | Place::Values(key, _) => key,
        };
        let Some(of_key) = self.by_key.get_mut(key) else { return };
        take(&mut of_key.any, item);
        if let Place::Values(_, values) = place(selector) {
            for value in values {
                let Some(items) = of_key.by_value.get_mut(value) else { continue };
                take(items, item);
                if items.is_empty() {
                    of_key.by_value.remove(value);
                }
            }
        }
        if of_key.any.is_empty() && of_key.by_value.is_empty() {
            self.by_key.remove(key);
        }
    }

    /// All whose selector may match, each once.
    pub(crate) fn candidates(&self, labels: &Labels) -> impl Iterator<Item = T> {
        let of_label = |(key, value): (&str, &str)| {
            let of_key = self.by_key.get(key)?;
            let of_value = of_key.by_value.get(value).into_iter().flatten();
            Some(of_key.any.iter().chain(of_value).copied())
        };
        self.others.iter().copied().chain(labels.iter().filter_map(of_label).flatten())
    }
}

/// Under the fewest values that it needs one of, else a key.
fn place(selector: &LabelSelector) -> Place<'_> {
    let values = |of: &Asked| match of {
        Asked::In(values) => Some(values.len()),
        _ => None,
    };
    let requirements = selector.requirements();
    let narrow = requirements.iter().filter(|it| values(&it.of).is_some());
    match narrow.min_by_key(|it| values(&it.of)) {
        Some(it) => match &it.of {
            Asked::In(values) => Place::Values(&it.key, values),
            _ => Place::Key(&it.key),
        },
        None => requirements
            .iter()
            .find(|it| it.of == Asked::Exists)
            .map_or(Place::Other, |it| Place::Key(&it.key)),
    }
}

fn take<T: Copy + Eq>(items: &mut Vec<T>, item: T) {
    if let Some(at) = items.iter().position(|it| *it == item) {
        items.swap_remove(at);
    }
}
