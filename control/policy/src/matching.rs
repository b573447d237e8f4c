//! Who matches what now? Labels that changed against all selectors, and all labels against selectors that are new.

use crate::compiler::Compiler;
use crate::hash::{NumberSet, Set};
use crate::selectors::{NamespaceSelectorNo, News, Scope, SelectorNo};
use crate::settle::in_order;
use crate::world::PodNo;

impl Compiler {
    /// Matches what is pending and what is new; `pending.pods` has who matches something else. What was touched.
    pub(crate) fn match_all(&mut self) -> NumberSet<SelectorNo> {
        let news = std::mem::take(&mut self.selectors.news);
        self.match_namespaces(&news);
        self.match_news(&news);
        self.match_pending();
        news.touched
    }

    fn match_namespaces(&mut self, news: &News) {
        let relabelled = std::mem::take(&mut self.pending.namespaces);
        if !news.namespaces.is_empty() {
            for (name, state) in &mut self.world.namespaces {
                if !relabelled.contains(name) {
                    let index = Some(&news.namespaces);
                    state.matched.extend(self.selectors.matching_namespaces(&state.labels, index));
                    state.matched.sort_unstable();
                }
            }
        }
        for name in relabelled {
            let Some(state) = self.world.namespaces.get_mut(&name) else { continue };
            let mut matched = self.selectors.matching_namespaces(&state.labels, None);
            matched.sort_unstable();
            if matched != state.matched {
                state.matched = matched;
                self.pending.unmatched.extend(&state.pods);
            }
        }
    }

    /// The pods of all selectors that are new or touched.
    fn match_news(&mut self, news: &News) {
        for name in self.concerned(news) {
            let Some(namespace) = self.world.namespaces.get(&name) else { continue };
            let (matched, numbers) = (namespace.matched.clone(), namespace.pods.clone());
            for number in numbers {
                self.match_pod_news(number, (&name, &matched), news);
            }
        }
    }

    fn match_pod_news(&mut self, number: PodNo, namespace: (&str, &[NamespaceSelectorNo]), news: &News) {
        if self.pending.unmatched.contains(&number) {
            return;
        }
        let Some(state) = self.world.pod_mut(number) else { return };
        let found = self.selectors.matching(namespace, state.pod.labels(), Some(&news.pods));
        let is_touched = state.matched.iter().any(|selector| news.touched.contains(selector));
        if found.is_empty() && !is_touched {
            return;
        }
        state.matched.extend(found);
        state.matched.sort_unstable();
        self.pending.pods.insert(number);
    }

    /// The namespaces with pods that new or touched selectors may be about.
    fn concerned(&self, news: &News) -> Vec<Box<str>> {
        let mut named: Set<Box<str>> = news.pods.named.keys().cloned().collect();
        let mut matching: NumberSet<NamespaceSelectorNo> = news.pods.matching.keys().copied().collect();
        for selector in &news.touched {
            match self.selectors.scope(*selector) {
                Some(Scope::Named(name)) => drop(named.insert(name.clone())),
                Some(Scope::Matching(number)) => drop(matching.insert(*number)),
                None => {}
            }
        }
        if matching.is_empty() {
            return named.into_iter().collect();
        }
        let namespaces = self.world.namespaces.iter();
        let is_concerned = |matched: &[NamespaceSelectorNo]| matched.iter().any(|it| matching.contains(it));
        namespaces
            .filter(|(name, state)| named.contains(*name) || is_concerned(&state.matched))
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn match_pending(&mut self) {
        for number in in_order(&std::mem::take(&mut self.pending.unmatched)) {
            let Some(state) = self.world.pod(number) else { continue };
            let name = &state.pod.name().namespace;
            let Some(namespace) = self.world.namespaces.get(name) else { continue };
            let of_pod = (&**name, &*namespace.matched);
            let mut matched = self.selectors.matching(of_pod, state.pod.labels(), None);
            matched.sort_unstable();
            if let Some(state) = self.world.pod_mut(number) {
                state.matched = matched;
            }
            self.pending.pods.insert(number);
        }
    }
}
