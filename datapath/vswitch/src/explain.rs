//! What would happen to a frame, in words?

use frame::{Burst, DropReason, Offload};
use wire::{EtherType, IpProtocol};

use crate::actions::{Actions, Output};
use crate::conntrack::Tuple;
use crate::gateway::{Answer, Budget, Handled};
use crate::key::{Field, class, ip, mac};
use crate::outputs::{Egress, Outputs};
use crate::parse::{Packet, Raw, parse};
use crate::pipeline::{self, Scene, Walk};
use crate::program::{PortNo, Program, Tunnel};
use crate::stations::Effect;
use crate::switch::{Outcome, ProcessReport, Switch, carry_out, enter, readdress, sight, translate};
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
    pub outputs: Vec<Departure>,
    /// Why it would end, or the first reason why a port of a flood could not send it.
    pub drop: Option<DropReason>,
    /// The rule, or the policies that isolate a pod, by which it is denied.
    pub denied_by: Option<String>,
}

/// A frame that would leave by a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// The port.
    pub port: PortNo,
    /// The shape in which it leaves.
    pub egress: Egress,
    /// All its bytes: routed, translated, and with the headers of the tunnel that it leaves in.
    pub bytes: Vec<u8>,
    /// How many of them are the tunnel's headers, in front; 0 if it leaves in none.
    pub outer_bytes: usize,
    /// It is the gateway's answer to whoever sent the frame.
    pub is_answer: bool,
}

/// By which port a frame comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// This one.
    Port(PortNo),
    /// The one that leads to the other nodes.
    Uplink,
}

impl Switch {
    /// Says in words what would happen to the frame `bytes` if it came in now. The same stages decide, and nothing changes.
    pub fn explain(&self, entrance: Entrance, bytes: &[u8], now: Now) -> Explanation {
        let mut explanation = Explanation::default();
        if let Err(reason) = self.explain_into(&mut explanation, entrance, bytes, now) {
            explanation.end(reason);
        }
        explanation
    }

    fn explain_into(
        &self,
        explanation: &mut Explanation,
        entrance: Entrance,
        bytes: &[u8],
        now: Now,
    ) -> Result<(), DropReason> {
        let mut burst = Burst::new();
        burst.push_owned(bytes.to_vec(), Offload::NONE).map_err(|_| DropReason::Malformed)?;
        let port = match entrance {
            Entrance::Port(port) => port,
            Entrance::Uplink => self.program.underlay().ok_or(DropReason::NoNetwork)?.port,
        };
        let scene = enter(&self.program, &self.shared, (&mut burst, 0), port, now)?;
        if let Some(Tunnel { node, vni }) = scene.tunnel {
            let node = self.program.node_name(node);
            let sentence = format!("comes out of the tunnel from node {node}, VNI {}", vni.get());
            explanation.steps.push(Step { stage: "tunnel", sentence });
        }
        let (head, frame_bytes) = (burst.head(0), burst.frame_len(0));
        let mut packet = Packet::default();
        parse(Raw { head, frame_bytes, gso: None, port: scene.ingress.number }, &mut packet)?;
        if let Some(tunnel) = scene.tunnel {
            packet.set_node(tunnel.node);
        }
        explanation.steps.push(Step { stage: "parse", sentence: describe(&packet, frame_bytes) });
        let scene = Scene { effect: Effect::DryRun, ..scene };
        let mut walk =
            Walk::new(scene, sight(&packet, &burst, 0)).with_trace(std::mem::take(&mut explanation.steps));
        let actions = pipeline::run(&mut walk);
        let opens = walk.opens();
        explanation.denied_by = walk.denied_by().map(str::to_owned);
        explanation.steps = walk.into_trace();
        if let Output::Answer(Answer::Configure(asked)) = actions.output {
            let (origin, network, program) = (scene.origin(), scene.network.number, &*self.program);
            // What is asked lies beyond what the stages read: only the answer says it, which takes the question's place.
            let mut copy = Burst::new();
            copy.push_owned(burst.gather(0).to_vec(), Offload::NONE).map_err(|_| DropReason::Malformed)?;
            let (burst, packet) = (&mut copy, &packet);
            let mut handled = Handled { burst, frame: 0, packet, origin, network, program, now };
            let sentence = handled.configure(asked)?.words();
            explanation.say("dhcp", sentence);
        }
        explanation.carry_out((&actions, opens), (&scene, &packet), &mut burst);
        Ok(())
    }
}

impl Explanation {
    fn end(&mut self, reason: DropReason) {
        self.say("drop", reason.sentence().to_owned());
        self.drop.get_or_insert(reason);
    }

    fn say(&mut self, stage: &'static str, sentence: String) {
        self.steps.push(Step { stage, sentence });
    }

    /// Does to the frame what was decided, as the switch does, and says what leaves.
    fn carry_out(
        &mut self,
        (actions, opens): (&Actions, Option<Tuple>),
        (scene, packet): (&Scene<'_>, &Packet),
        burst: &mut Burst,
    ) {
        if let Some(reason) = actions.drop_reason() {
            return self.end(reason);
        }
        let program = scene.program;
        let mut budget = Budget::default();
        let (mut out, mut report) = (Outputs::default(), ProcessReport::default());
        let sinks = (&mut out, &mut report);
        let outcome = carry_out(actions, (scene, packet), (burst, 0), &mut budget, sinks);
        match (outcome, actions.connection.filter(|_| actions.translate), opens) {
            (Outcome::GoesOn, Some(connection), _) => translate((scene, packet), connection, (burst, 0)),
            (Outcome::GoesOn, None, Some(to)) => readdress(packet, &to, (burst, 0)),
            (Outcome::GoesOn, None, None) | (Outcome::Answered, ..) => {}
            (Outcome::Refused(reason), ..) => {
                self.say("gateway", format!("cannot send it on: {}", reason.sentence()));
            }
        }
        actions.for_each_output((packet, scene.origin()), program, |port, egress| {
            if let (Err(reason), Outcome::GoesOn) = (egress, outcome) {
                self.refuse(port, reason, program);
            }
        });
        for group in out.groups() {
            self.depart((group.port, group.egress), outcome, burst, program);
        }
        if out.groups().is_empty() && self.drop.is_none() {
            report.drops.iter().for_each(|(reason, _)| self.end(reason));
        }
    }

    /// The frame leaves by `port` in the shape `egress`, if it can have that.
    fn depart(
        &mut self,
        (port, egress): (PortNo, Egress),
        outcome: Outcome,
        burst: &mut Burst,
        program: &Program,
    ) {
        let before = burst.frame_len(0);
        let undo = match egress.apply(burst, 0, program) {
            Ok(undo) => undo,
            Err(reason) => return self.refuse(port, reason, program),
        };
        let outer_bytes = match egress {
            Egress::Tunnel(_) => burst.frame_len(0) - before,
            Egress::Plain | Egress::Tag(_) | Egress::ServiceTag(_) => 0,
        };
        let is_answer = outcome != Outcome::GoesOn;
        let bytes = burst.gather(0).to_vec();
        undo.undo(burst, 0);
        let (name, shape) = (port_name(port, program), shape(egress, program));
        self.say("output", format!("leaves by port {} ({name}), {shape}", port.0));
        self.outputs.push(Departure { port, egress, bytes, outer_bytes, is_answer });
    }

    fn refuse(&mut self, port: PortNo, reason: DropReason, program: &Program) {
        let name = port_name(port, program);
        self.say("drop", format!("not by port {} ({name}): {}", port.0, reason.sentence()));
        self.drop.get_or_insert(reason);
    }
}

fn port_name(port: PortNo, program: &Program) -> &str {
    program.spec().ports.get(&port).map_or("?", |spec| spec.name.as_str())
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
