//! Which choices of pods do policies make, and who makes each?

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{LabelSelector, Labels, NamespaceChoice, PodChoice};

use crate::hash::{Map, NumberMap, NumberSet};
use crate::label_index::LabelIndex;
use crate::numbers::Numbers;
use crate::objects::ObjectNo;

/// A choice of pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SelectorNo(u32);

/// A choice of namespaces by label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NamespaceSelectorNo(u32);

/// All choices in use.
#[derive(Debug, Default)]
pub(crate) struct Selectors {
    numbers: Numbers<PodChoice>,
    of_number: NumberMap<SelectorNo, Selector>,
    index: Scoped,
    namespaces: Numbers<LabelSelector>,
    namespace_index: LabelIndex<NamespaceSelectorNo>,
    /// What is to be matched, since the last look.
    pub(crate) news: News,
}

/// Choices that are new, or that others use now.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) namespaces: LabelIndex<NamespaceSelectorNo>,
    pub(crate) pods: Scoped,
    /// Their pods have other facts, or are in another group.
    pub(crate) touched: NumberSet<SelectorNo>,
}

/// Choices of pods by what they choose of namespaces.
#[derive(Debug, Default)]
pub(crate) struct Scoped {
    pub(crate) named: Map<Box<str>, LabelIndex<SelectorNo>>,
    pub(crate) matching: NumberMap<NamespaceSelectorNo, LabelIndex<SelectorNo>>,
}

#[derive(Debug)]
struct Selector {
    choice: Arc<PodChoice>,
    scope: Scope,
    subject_of: BTreeSet<ObjectNo>,
    peer_of: BTreeSet<ObjectNo>,
}

/// Where its pods are.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scope {
    Named(Box<str>),
    Matching(NamespaceSelectorNo),
}

/// What a choice is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    Subject,
    Peer,
}

impl Selectors {
    /// `object` makes this choice.
    pub(crate) fn add(&mut self, choice: &PodChoice, object: ObjectNo, of: Use) -> SelectorNo {
        let number = match self.numbers.find(choice) {
            Some(number) => SelectorNo(number),
            None => self.create(choice),
        };
        if let Some(selector) = self.of_number.get_mut(&number)
            && selector.users(of).insert(object)
        {
            let is_first = selector.users(of).len() == 1;
            // Who is a peer's pod is a fact, whoever asks for it.
            if of == Use::Subject || is_first {
                self.news.touched.insert(number);
            }
        }
        number
    }

    fn create(&mut self, choice: &PodChoice) -> SelectorNo {
        let number = SelectorNo(self.numbers.acquire(choice.clone()).0);
        let scope = match &choice.namespaces {
            NamespaceChoice::Named(name) => Scope::Named(name.clone()),
            NamespaceChoice::Matching(selector) => {
                let (found, is_new) = self.namespaces.acquire(selector.clone());
                let found = NamespaceSelectorNo(found);
                if is_new {
                    self.namespace_index.insert(selector, found);
                    self.news.namespaces.insert(selector, found);
                }
                Scope::Matching(found)
            }
        };
        self.index.of(&scope).insert(&choice.pods, number);
        self.news.pods.of(&scope).insert(&choice.pods, number);
        if let Some(choice) = self.numbers.meaning(number.0) {
            let (subject_of, peer_of) = Default::default();
            self.of_number
                .insert(number, Selector { choice: Arc::clone(choice), scope, subject_of, peer_of });
        }
        number
    }

    /// `object` no longer makes this choice. It stands until the next [`Selectors::sweep`].
    pub(crate) fn remove(&mut self, number: SelectorNo, object: ObjectNo, of: Use) {
        let Some(selector) = self.of_number.get_mut(&number) else { return };
        if selector.users(of).remove(&object) && (of == Use::Subject || selector.peer_of.is_empty()) {
            self.news.touched.insert(number);
        }
    }

    pub(crate) fn find(&self, choice: &PodChoice) -> Option<SelectorNo> {
        self.numbers.find(choice).map(SelectorNo)
    }

    /// Where the pods of a choice are.
    pub(crate) fn scope(&self, number: SelectorNo) -> Option<&Scope> {
        self.of_number.get(&number).map(|selector| &selector.scope)
    }

    /// Who selects the pods of a choice.
    pub(crate) fn subject_of(&self, number: SelectorNo) -> impl Iterator<Item = ObjectNo> {
        self.of_number.get(&number).into_iter().flat_map(|selector| &selector.subject_of).copied()
    }

    /// Whose rules are about the pods of a choice.
    pub(crate) fn peer_of(&self, number: SelectorNo) -> impl Iterator<Item = ObjectNo> {
        self.of_number.get(&number).into_iter().flat_map(|selector| &selector.peer_of).copied()
    }

    /// True if anybody makes the choice.
    pub(crate) fn is_used(&self, number: SelectorNo) -> bool {
        let used = |it: &Selector| !(it.subject_of.is_empty() && it.peer_of.is_empty());
        self.of_number.get(&number).is_some_and(used)
    }

    /// Forgets the choices of `touched` that nobody makes; true if choices of namespaces went with them.
    pub(crate) fn sweep(&mut self, touched: &NumberSet<SelectorNo>) -> bool {
        for number in touched {
            if self.is_used(*number) {
                continue;
            }
            let Some(selector) = self.of_number.remove(number) else { continue };
            self.index.remove(&selector.scope, &selector.choice.pods, *number);
            self.numbers.release(number.0);
            if let Scope::Matching(namespaces) = selector.scope {
                self.namespaces.release(namespaces.0);
            }
        }
        self.numbers.sweep();
        let gone = self.namespaces.sweep();
        for (number, selector) in &gone {
            self.namespace_index.remove(selector, NamespaceSelectorNo(*number));
        }
        !gone.is_empty()
    }

    /// True if it has not been forgotten.
    pub(crate) fn has_namespaces(&self, number: NamespaceSelectorNo) -> bool {
        self.namespaces.meaning(number.0).is_some()
    }

    /// The choices of namespaces that `labels` match, among those in `index`, or all.
    pub(crate) fn matching_namespaces(
        &self,
        labels: &Labels,
        index: Option<&LabelIndex<NamespaceSelectorNo>>,
    ) -> Vec<NamespaceSelectorNo> {
        let candidates = index.unwrap_or(&self.namespace_index).candidates(labels);
        let matches = |number: &NamespaceSelectorNo| {
            self.namespaces.meaning(number.0).is_some_and(|selector| selector.matches(labels))
        };
        candidates.filter(matches).collect()
    }

    /// The choices of pods that `labels` match in such a namespace, among those in `index`, or all.
    pub(crate) fn matching(
        &self,
        (namespace, matched): (&str, &[NamespaceSelectorNo]),
        labels: &Labels,
        index: Option<&Scoped>,
    ) -> Vec<SelectorNo> {
        let index = index.unwrap_or(&self.index);
        let of_scopes = matched.iter().filter_map(|number| index.matching.get(number));
        let indexes = index.named.get(namespace).into_iter().chain(of_scopes);
        let matches = |number: &SelectorNo| {
            self.of_number.get(number).is_some_and(|selector| selector.choice.pods.matches(labels))
        };
        indexes.flat_map(|index| index.candidates(labels)).filter(matches).collect()
    }
}

impl Selector {
    fn users(&mut self, of: Use) -> &mut BTreeSet<ObjectNo> {
        match of {
            Use::Subject => &mut self.subject_of,
            Use::Peer => &mut self.peer_of,
        }
    }
}

impl Scoped {
    fn of(&mut self, scope: &Scope) -> &mut LabelIndex<SelectorNo> {
        match scope {
            Scope::Named(name) => self.named.entry(name.clone()).or_default(),
            Scope::Matching(number) => self.matching.entry(*number).or_default(),
        }
    }

    fn remove(&mut self, scope: &Scope, selector: &LabelSelector, number: SelectorNo) {
        let index = self.of(scope);
        index.remove(selector, number);
        if index.is_empty() {
            match scope {
                Scope::Named(name) => drop(self.named.remove(name)),
                Scope::Matching(number) => drop(self.matching.remove(number)),
            }
        }
    }
}
