//! What would happen to a frame, in words?

use frame::{Burst, DropReason, Offload};
use wire::{EtherType, IpProtocol};

use crate::actions::{Actions, Origin, Output};
use crate::gateway::{Answer, Handled};
use crate::key::{Field, class, ip, mac};
use crate::outputs::Egress;
use crate::parse::{Packet, Raw, parse};
use crate::pipeline::{self, Scene, Walk};
use crate::program::{PortNo, Program, Tunnel};
use crate::stations::Effect;
use crate::switch::{Switch, enter, sight};
use crate::time::Now;

/// What one stage says about a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The stage: `tunnel`, `parse`, `admit`, `security`, `learn`, `dhcp`, `connection`, `service`, `gateway`,
    /// `forward`, `policy`, `output`, `drop`.
    pub stage: &'static str,
    /// What it found, for people.
    pub sentence: String,
}

/// The way of one frame through the switch, dry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Explanation {
    /// The stages' sentences, in order.
    pub steps: Vec<Step>,
    /// Who would send it, and how.
    pub outputs: Vec<(PortNo, Egress)>,
    /// Why it would end, or the first reason why a port of a flood could not send it.
    pub drop: Option<DropReason>,
}

impl Switch {
    /// Says in words what would happen to the frame `bytes` if it came in by `port` now. The same stages decide, and
    /// nothing changes.
    pub fn explain(&self, port: PortNo, bytes: &[u8], now: Now) -> Explanation {
        let mut explanation = Explanation::default();
        if let Err(reason) = self.explain_into(&mut explanation, port, bytes, now) {
            explanation.end(reason);
        }
        explanation
    }

    fn explain_into(
        &self,
        explanation: &mut Explanation,
        port: PortNo,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), DropReason> {
        let mut burst = Burst::new();
        burst.push_owned(bytes.to_vec(), Offload::NONE).map_err(|_| DropReason::Malformed)?;
        let scene = enter(&self.program, &self.shared, (&mut burst, 0), port, now)?;
        if let Some(Tunnel { node, vni }) = scene.tunnel {
            let node = self.program.node_name(node);
            let sentence = format!("comes out of the tunnel from node {node}, VNI {}", vni.get());
            explanation.steps.push(Step { stage: "tunnel", sentence });
        }
        let (head, frame_bytes) = (burst.head(0), burst.frame_len(0));
        let mut packet = Packet::default();
        parse(Raw { head, frame_bytes, gso: None, port: scene.ingress.number }, &mut packet)?;
        explanation.steps.push(Step { stage: "parse", sentence: describe(&packet, frame_bytes) });
        let scene = Scene { effect: Effect::DryRun, ..scene };
        let sight = sight(&packet, &burst, 0);
        let mut walk = Walk::new(scene, sight).with_trace(std::mem::take(&mut explanation.steps));
        let actions = pipeline::run(&mut walk);
        explanation.steps = walk.into_trace();
        if let Output::Answer(Answer::Configure(asked)) = actions.output {
            let (origin, network, program) = (scene.origin(), scene.network.number, &*self.program);
            let burst = &mut burst;
            let mut handled = Handled { burst, frame: 0, packet: &packet, origin, network, program, now };
            // What is asked lies beyond what the stages read: only the answer says it.
            let sentence = handled.configure(asked)?.words();
            explanation.steps.push(Step { stage: "dhcp", sentence });
        }
        explanation.list_outputs(&actions, (&packet, scene.origin()), &self.program);
        Ok(())
    }
}

impl Explanation {
    fn end(&mut self, reason: DropReason) {
        self.steps.push(Step { stage: "drop", sentence: reason.sentence().to_owned() });
        self.drop.get_or_insert(reason);
    }

    fn list_outputs(&mut self, actions: &Actions, frame: (&Packet, Origin), program: &Program) {
        if let Output::Drop(reason) = actions.output {
            return self.end(reason);
        }
        let name = |port: PortNo| program.spec().ports.get(&port).map_or("?", |spec| spec.name.as_str());
        actions.for_each_output(frame, program, |port, egress| {
            let (stage, sentence) = match egress {
                Ok(egress) => {
                    self.outputs.push((port, egress));
                    (
                        "output",
                        format!("leaves by port {} ({}), {}", port.0, name(port), shape(egress, program)),
                    )
                }
                Err(reason) => {
                    self.drop.get_or_insert(reason);
                    ("drop", format!("not by port {} ({}): {}", port.0, name(port), reason.sentence()))
                }
            };
            self.steps.push(Step { stage, sentence });
        });
    }
}

fn shape(egress: Egress, program: &Program) -> String {
    match egress {
        Egress::Tunnel(Tunnel { node, vni }) => {
            format!("through the tunnel to node {}, VNI {}", program.node_name(node), vni.get())
        }
        Egress::Plain => "as it is".to_owned(),
        Egress::Tag(tci) => format!("tagged with VLAN {}", tci & 0xfff),
        Egress::ServiceTag(tci) => format!("service-tagged with VLAN {}", tci & 0xfff),
    }
}

/// What the parser saw, in a sentence.
fn describe(packet: &Packet, frame_bytes: usize) -> String {
    let key = &packet.key;
    let mut words = format!(
        "{frame_bytes} bytes from {} to {}",
        mac(key.get(Field::SOURCE_MAC)),
        mac(key.get(Field::DESTINATION_MAC))
    );
    if key.get(Field::TAG) != 0 {
        words += &format!(", tagged with VLAN {}", packet.tci & 0xfff);
    }
    let addresses = || {
        let read = |[high, low]: [Field; 2]| ip(key.get(high), key.get(low));
        (read(Field::SOURCE_IP), read(Field::DESTINATION_IP))
    };
    let classes = key.get(Field::CLASS);
    match EtherType(key.get(Field::ETHER_TYPE) as u16) {
        EtherType::IPV4 | EtherType::IPV6 => {
            let (from, to) = addresses();
            words += &format!(": {} from {from} to {to}", IpProtocol(key.get(Field::PROTOCOL) as u8));
        }
        EtherType::ARP if classes & class::ARP != 0 => {
            let (from, to) = addresses();
            words += &format!(": ARP of {from} about {to}");
        }
        EtherType(other) => words += &format!(": EtherType {other:#06x}"),
    }
    if classes & class::TRANSPORT != 0 {
        let (source, destination) = (key.get(Field::SOURCE_PORT), key.get(Field::DESTINATION_PORT));
        words += &match IpProtocol(key.get(Field::PROTOCOL) as u8) {
            IpProtocol::ICMP | IpProtocol::ICMPV6 => format!(", type {source}, code {destination}"),
            _ => format!(", port {source} to {destination}"),
        };
    }
    if classes & class::FRAGMENT != 0 {
        words += ", a fragment";
    }
    words
}
