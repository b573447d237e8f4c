//! Which ports do egress rules name? A name is a number of its own at each pod that they are about.

use std::collections::BTreeSet;

use crate::hash::Map;
use crate::objects::ObjectNo;

/// A name for ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NameNo(u32);

/// All names in use.
#[derive(Debug, Default)]
pub(crate) struct Names {
    numbers: Map<Box<str>, NameNo>,
    users: Map<NameNo, BTreeSet<ObjectNo>>,
    next: u32,
    /// That came into use, or out of it, since the last look.
    pub(crate) touched: BTreeSet<Box<str>>,
}

impl Names {
    pub(crate) fn add(&mut self, name: &str, object: ObjectNo) {
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => self.create(name),
        };
        let users = self.users.entry(number).or_default();
        if users.insert(object) && users.len() == 1 {
            self.touched.insert(name.into());
        }
    }

    fn create(&mut self, name: &str) -> NameNo {
        while self.users.contains_key(&NameNo(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let number = NameNo(self.next);
        self.next = self.next.wrapping_add(1);
        self.numbers.insert(name.into(), number);
        number
    }

    /// The name stands until the next [`Names::sweep`].
    pub(crate) fn remove(&mut self, name: &str, object: ObjectNo) {
        let users = self.numbers.get(name).and_then(|number| self.users.get_mut(number));
        if let Some(users) = users
            && users.remove(&object)
            && users.is_empty()
        {
            self.touched.insert(name.into());
        }
    }

    /// The number of a name that somebody uses.
    pub(crate) fn used(&self, name: &str) -> Option<NameNo> {
        self.numbers.get(name).copied().filter(|number| self.users(*number).next().is_some())
    }

    pub(crate) fn users(&self, number: NameNo) -> impl Iterator<Item = ObjectNo> {
        self.users.get(&number).into_iter().flatten().copied()
    }

    /// Forgets names that nobody uses.
    pub(crate) fn sweep(&mut self, touched: &BTreeSet<Box<str>>) {
        for name in touched {
            let Some(number) = self.numbers.get(name).copied() else { continue };
            if self.users(number).next().is_none() {
                self.users.remove(&number);
                self.numbers.remove(name);
            }
        }
    }
}
