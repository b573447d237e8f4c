//! Which pods have one policy? Those that the same policies select, and whose ports have the same numbers where it matters.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::NamedPort;
use vswitch::program::PolicyNo;

use crate::numbers::Numbers;
use crate::objects::ObjectNo;

/// What the pods of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    /// Who selects them, sorted.
    pub(crate) objects: Box<[ObjectNo]>,
    /// Their ports that ingress rules of these name, sorted.
    pub(crate) ports: Box<[NamedPort]>,
}

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    numbers: Numbers<Group>,
    /// Whose policy is to be compiled, since the last look.
    pub(crate) touched: BTreeSet<PolicyNo>,
}

impl Groups {
    /// One more pod of a group: its number, and true if the group is new.
    pub(crate) fn join(&mut self, group: Group) -> (PolicyNo, bool) {
        let (number, is_new) = self.numbers.acquire(group);
        if is_new {
            self.touched.insert(PolicyNo(number));
        }
        (PolicyNo(number), is_new)
    }

    /// One pod less.
    pub(crate) fn leave(&mut self, number: PolicyNo) {
        self.numbers.release(number.0);
    }

    /// Forgets groups without pods.
    pub(crate) fn sweep(&mut self) -> Vec<(PolicyNo, Arc<Group>)> {
        self.numbers.sweep().into_iter().map(|(number, group)| (PolicyNo(number), group)).collect()
    }

    pub(crate) fn get(&self, number: PolicyNo) -> Option<&Group> {
        self.numbers.meaning(number.0).map(|group| &**group)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = PolicyNo> {
        self.numbers.iter().map(PolicyNo)
    }
}
