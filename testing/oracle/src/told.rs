//! What was the switch told, change by change, and what does that say, rule by rule?

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use model::{PodName, Protocol};
use policy::{Changed, Compiler};
use vswitch::program::{
    IdentityNo, IdentitySpec, PolicyNo, PolicySpec, Prefix, RuleAction, RuleSpec, TierSpec,
};
use wire::IpProtocol;

use crate::world::{Answer, Question, World};

/// What a switch has that is told of each change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Who has which identity.
    pub identities: BTreeMap<IpNet, IdentitySpec>,
    /// What policies say.
    pub policies: BTreeMap<PolicyNo, PolicySpec>,
    /// Which pod has which.
    pub pods: BTreeMap<PodName, PolicyNo>,
}

impl Told {
    /// Tells it what changed.
    pub fn follow(&mut self, world: &World, compiler: &Compiler, changed: &Changed) {
        for entry in &changed.put_identities {
            self.identities.insert(net(entry.addresses), entry.clone());
        }
        for gone in &changed.delete_identities {
            assert!(self.identities.remove(&net(*gone)).is_some(), "{gone:?} was not there");
        }
        for number in &changed.put_policies {
            self.policies.insert(*number, compiler.policy(*number).expect("a policy that is put exists"));
        }
        for number in &changed.delete_policies {
            assert!(self.policies.remove(number).is_some(), "{number:?} was not there");
        }
        for (pod, policy) in &changed.pods {
            match policy {
                Some(policy) => drop(self.pods.insert(pod.clone(), *policy)),
                None => drop(self.pods.remove(pod)),
            }
        }
        let has = |name: &PodName| {
            world.pods.iter().any(|pod| !pod.host_network && PodName::new(&pod.namespace, &pod.name) == *name)
        };
        self.pods.retain(|name, _| has(name));
    }

    /// All that a compiler has.
    pub fn of(world: &World, compiler: &Compiler) -> Self {
        let names = world.pods.iter().map(|pod| PodName::new(&pod.namespace, &pod.name));
        Self {
            identities: compiler.identities().into_iter().map(|it| (net(it.addresses), it)).collect(),
            policies: compiler.policies(),
            pods: names.filter_map(|name| Some((name.clone(), compiler.policy_of(&name)?))).collect(),
        }
    }

    /// Whether a connection may be, and who says so.
    pub fn ask(&self, world: &World, question: &Question) -> Answer {
        let egress = self.ask_client(world, question);
        match egress {
            Some(Answer { allowed: false, by }) => Answer { allowed: false, by },
            egress => self.ask_server(world, question).or(egress).unwrap_or(NOTHING),
        }
    }

    /// What the client's policies say, if it is a pod.
    pub(crate) fn ask_client(&self, world: &World, question: &Question) -> Option<Answer> {
        let policy = self.policy_at(world, question.client)?;
        let ask = |policy: &PolicySpec| ask_tiers(&policy.egress, self.identity(question.server), question);
        Some(policy.map_or(NOTHING, ask))
    }

    /// What the server's policies say, if it is a pod.
    pub(crate) fn ask_server(&self, world: &World, question: &Question) -> Option<Answer> {
        let policy = self.policy_at(world, question.server)?;
        let ask = |policy: &PolicySpec| ask_tiers(&policy.ingress, self.identity(question.client), question);
        Some(policy.map_or(NOTHING, ask))
    }

    /// The policy of the pod that has an address, if it has one; `None` if it is no pod's.
    fn policy_at(&self, world: &World, address: IpAddr) -> Option<Option<&PolicySpec>> {
        let pod = world.pod_at(address)?;
        let number = self.pods.get(&PodName::new(&pod.namespace, &pod.name));
        Some(number.map(|number| &self.policies[number]))
    }

    fn identity(&self, address: IpAddr) -> Option<IdentityNo> {
        let having = self.identities.iter().filter(|(net, _)| net.contains(&address));
        having.max_by_key(|(net, _)| net.prefix_len()).map(|(_, entry)| entry.identity)
    }

    /// The same, where numbers are who has them: what two compilers agree on that came another way.
    pub fn meaning(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut who: BTreeMap<IdentityNo, Vec<IpNet>> = BTreeMap::new();
        for (net, entry) in &self.identities {
            who.entry(entry.identity).or_default().push(*net);
        }
        let peers = |rule: &RuleSpec| {
            rule.peers.as_ref().map(|peers| {
                let mut nets: Vec<_> =
                    peers.iter().filter_map(|peer| who.get(peer)).flatten().copied().collect();
                nets.sort_unstable();
                nets
            })
        };
        let rule = |rule: &RuleSpec| (rule.name.clone(), peers(rule), rule.ports.clone(), rule.action);
        let tiers = |tiers: &[TierSpec]| -> Vec<_> {
            let rules = |tier: &TierSpec| {
                tier.rules.iter().map(rule).filter(|it| it.1 != Some(vec![])).collect::<Vec<_>>()
            };
            tiers.iter().map(|tier| (rules(tier), tier.isolated_by.clone())).collect()
        };
        let pods = self.pods.iter().map(|(name, number)| {
            let policy = &self.policies[number];
            (name.clone(), policy.name.clone(), tiers(&policy.egress), tiers(&policy.ingress))
        });
        let partition: Vec<_> =
            self.identities.iter().map(|(net, it)| (*net, who[&it.identity].clone())).collect();
        (partition, pods.collect::<Vec<_>>(), self.policies.len())
    }
}

/// Nothing is against it.
const NOTHING: Answer = Answer { allowed: true, by: None };

fn ask_tiers(tiers: &[TierSpec], peer: Option<IdentityNo>, question: &Question) -> Answer {
    for tier in tiers {
        match tier.rules.iter().find(|rule| matches(rule, peer, question)) {
            Some(RuleSpec { action: RuleAction::Pass, .. }) => {}
            Some(rule) => {
                return Answer { allowed: rule.action == RuleAction::Allow, by: Some(rule.name.clone()) };
            }
            None => {
                if let Some(by) = &tier.isolated_by {
                    return Answer { allowed: false, by: Some(by.clone()) };
                }
            }
        }
    }
    NOTHING
}

fn matches(rule: &RuleSpec, peer: Option<IdentityNo>, question: &Question) -> bool {
    let protocol = question.protocol.map(number);
    let of_peer = rule.peers.as_ref().is_none_or(|peers| peer.is_some_and(|peer| peers.contains(&peer)));
    of_peer
        && rule.ports.as_ref().is_none_or(|ranges| {
            ranges.iter().any(|it| Some(it.protocol) == protocol && it.ports.contains(&question.port))
        })
}

pub(crate) fn number(protocol: Protocol) -> IpProtocol {
    match protocol {
        Protocol::Tcp => IpProtocol::TCP,
        Protocol::Udp => IpProtocol::UDP,
        Protocol::Sctp => IpProtocol::SCTP,
    }
}

fn net(prefix: Prefix) -> IpNet {
    IpNet::new(prefix.address, prefix.len).expect("a prefix is no longer than its address")
}
