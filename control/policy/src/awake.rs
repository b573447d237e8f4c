//! Whose subjects are matched? Those of policies that can select a pod that is wanted: one in their namespace.
//!
//! A node wants few of a cluster's pods. The policies of namespaces with none of them *sleep*: they are kept as they were
//! written, and no pod is held against them. A policy of the cluster never sleeps.

use model::Pod;

use crate::compiler::{Compiler, Span};
use crate::objects::ObjectNo;
use crate::selectors::Use;

impl Compiler {
    /// True if the policies of a pod are wanted.
    pub(crate) fn wants(&self, pod: &Pod) -> bool {
        match &self.span {
            Span::Everywhere => true,
            Span::Node(node) => pod.node() == Some(node),
        }
    }

    /// A pod is there.
    pub(crate) fn enter(&mut self, pod: &Pod) {
        if self.wants(pod) {
            let woken = self.objects.enter(&pod.name().namespace);
            woken.into_iter().for_each(|object| self.select(object));
        }
    }

    /// A pod is gone.
    pub(crate) fn leave(&mut self, pod: &Pod) {
        if self.wants(pod) {
            let asleep = self.objects.leave(&pod.name().namespace);
            asleep.into_iter().for_each(|object| self.unselect(object));
        }
    }

    /// From now on pods are held against what the policy selects.
    pub(crate) fn select(&mut self, number: ObjectNo) {
        if let Some(object) = self.objects.get_mut(number) {
            object.subject = Some(self.selectors.add(&object.written.subject(), number, Use::Subject));
        }
    }

    /// No longer.
    pub(crate) fn unselect(&mut self, number: ObjectNo) {
        let subject = self.objects.get_mut(number).and_then(|object| object.subject.take());
        if let Some(subject) = subject {
            self.selectors.remove(subject, number, Use::Subject);
        }
    }
}
