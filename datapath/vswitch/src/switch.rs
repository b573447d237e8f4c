//! How does one worker's switch take a burst through habit, parse, cache, pipeline and actions?
//!
//! | path | cost, relative | takes |
//! |---|---|---|
//! | (0) the frames look as their port's usually do | 0.2 | no lock, no parsing |
//! | (1) a cached decision holds | 1 | no lock, no shared write but a time stamp per flow and millisecond |
//! | (2) miss: the pipeline, and an insert | 10 | the lock of the learned stations, twice |

use std::collections::HashSet;
use std::sync::Arc;

use frame::{BURST_FRAMES, Burst, DropCounts, DropReason};
use wire::{EtherType, vlan};

use crate::actions::{Actions, Output};
use crate::cache::{Alike, Cache, CacheSizes, Habit, Level, NOWHERE};
use crate::conntrack::{Fault, Handle, Observed, Sight, Tuple, rewrite};
use crate::gateway::{Budget, Handled};
use crate::outputs::{Outputs, pop_tag};
use crate::parse::{Packet, Raw, parse};
use crate::pipeline::{self, Scene, Walk};
use crate::program::{NetworkSpec, PortNo, PortSpec, Program, ProgramSpec};
use crate::stations::Shared;
use crate::time::Now;
use crate::tunnel;

/// What [`Switch::process`] did with a burst; the caller adds it up. It is only added to, never cleared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProcessReport {
    /// Frames that ended in the switch.
    pub drops: DropCounts,
    /// The second and further times that a frame is in the outputs or the drops: frames in + copies == outputs + drops.
    pub copies: u64,
    /// Frames answered by the microflow cache.
    pub microflow_hits: u64,
    /// Frames answered by the megaflow cache.
    pub megaflow_hits: u64,
    /// Frames that went through the pipeline.
    pub misses: u64,
}

/// One worker's switch: its flow caches over the program and the shared stations.
pub struct Switch {
    pub(crate) shared: Arc<Shared>,
    pub(crate) program: Arc<Program>,
    pub(crate) cache: Cache,
    /// Scratch for one burst.
    packets: Box<[Packet; BURST_FRAMES]>,
    /// Complaints that it may still send.
    budget: Budget,
}

impl std::fmt::Debug for Switch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Switch").field("program", &self.program.version()).finish_non_exhaustive()
    }
}

impl Switch {
    /// A switch with empty caches. `seed` must be random: it keeps those who send frames from aiming at buckets.
    pub fn new(shared: Arc<Shared>, program: Arc<Program>, seed: u64) -> Self {
        Self::with_caches(CacheSizes::default(), shared, program, seed)
    }

    /// The same with caches of other sizes.
    pub fn with_caches(sizes: CacheSizes, shared: Arc<Shared>, program: Arc<Program>, seed: u64) -> Self {
        let mut cache = Cache::new(sizes, seed);
        cache.next_epoch(program.ports_end());
        let packets = Box::new([Packet::default(); BURST_FRAMES]);
        Self { shared, program, cache, packets, budget: Budget::default() }
    }

    /// Forwards by `program` from the next frame on. Cached decisions are not flushed: those of the old program are
    /// derived again when a frame asks for them. Stations learned behind a port that is gone, or has become another's,
    /// are forgotten.
    pub fn set_program(&mut self, program: Arc<Program>) {
        let old = std::mem::replace(&mut self.program, program);
        self.cache.next_epoch(self.program.ports_end());
        let gone = gone_ports(old.spec(), self.program.spec());
        if !gone.is_empty() {
            self.shared.forget_ports(|port| gone.contains(&port));
        }
    }

    /// Decides what happens to each frame of `burst`, which came in by `port`, and adds it to `out` (cleared by the
    /// caller) and `report`. Frames whose tag the program strips have it cut off their heads; [`crate::Egress::apply`]
    /// puts one on where it is wanted.
    #[allow(
        clippy::too_many_arguments,
        reason = "the datapath's one call; every argument is the caller's own"
    )]
    pub fn process(
        &mut self,
        burst: &mut Burst,
        port: PortNo,
        now: Now,
        out: &mut Outputs,
        report: &mut ProcessReport,
    ) {
        let program = &*self.program;
        if program.underlay().is_some_and(|underlay| underlay.port == port) {
            return self.process_uplink(burst, port, now, (out, report));
        }
        let Some(scene) = Scene::of(program, port, &self.shared, now) else {
            return report.drops.add(DropReason::NoNetwork, burst.len() as u64);
        };
        let habit = self.cache.habit(port, &self.shared);
        let alike = habit.map_or_else(Alike::default, |habit| habit.select(burst));
        let alike = match habit {
            Some(habit) if alike.frames == burst.len() => {
                habit.perform_on_all(burst, out);
                alike
            }
            _ => {
                let habit = habit.copied();
                let (cache, packets) = (&mut self.cache, &mut *self.packets);
                let mixed = Mixed { scene, cache, packets, budget: &mut self.budget, habit, alike };
                mixed.process(burst, out, report)
            }
        };
        if alike.frames > 0 {
            report.megaflow_hits += alike.frames as u64;
            self.cache.count_alike(port, alike, &self.shared, now);
        }
    }

    /// The program that it forwards by.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// As [`Switch::process`] for the port that leads to other nodes: each frame may be of another network.
    #[inline(never)]
    fn process_uplink(
        &mut self,
        burst: &mut Burst,
        uplink: PortNo,
        now: Now,
        (out, report): (&mut Outputs, &mut ProcessReport),
    ) {
        let Self { program, shared, cache, packets, budget, .. } = self;
        cache.begin();
        for frame in 0..burst.len() {
            match enter(program, shared, (burst, frame), uplink, now) {
                Ok(scene) => {
                    let alike = Alike::default();
                    let mut mixed = Mixed { scene, cache, packets, budget, habit: None, alike };
                    if mixed.parse(burst, frame, report) {
                        mixed.answer(frame, NOWHERE, burst, (out, report));
                    }
                }
                Err(reason) => report.drops.add(reason, 1),
            }
        }
    }

    /// Forgets what is idle or stale, cached decisions and stations: looks at up to `budget` entries of each table,
    /// going on where the last call ended. To be called about every 100 ms with a few thousand.
    pub fn sweep(&mut self, now: Now, budget: usize) {
        self.cache.sweep(now, budget);
        self.shared.sweep(&self.program, now, budget);
        self.shared.connections().sweep(now, budget);
        let services = self.program.services();
        self.shared.affinities().sweep(budget, |kept| {
            services.of(kept.service).is_none_or(|service| !service.keeps(&kept.endpoint, kept.used, now))
        });
    }
}

/// The ports of `old` that are not in `new`, or are another's, those that stand for other nodes among them.
fn gone_ports(old: &ProgramSpec, new: &ProgramSpec) -> HashSet<PortNo> {
    let is_gone = |port: &&PortSpec| {
        new.ports.get(&port.number).is_none_or(|it| (it.network, &it.name) != (port.network, &port.name))
    };
    let elsewhere = |network: &NetworkSpec| Some((network.overlay.as_ref()?.port, network.number));
    let kept: HashSet<_> = new.networks.values().filter_map(elsewhere).collect();
    let ports = old.ports.values().filter(is_gone).map(|port| port.number);
    let overlays = old.networks.values().filter_map(elsewhere).filter(|overlay| !kept.contains(overlay));
    ports.chain(overlays.map(|(port, _)| port)).collect()
}

/// Frame `frame`, as the tracker of connections is given it.
#[inline(always)]
pub(crate) fn sight<'a>(packet: &'a Packet, burst: &'a Burst, frame: usize) -> Sight<'a> {
    let (head, frame_bytes) = (burst.head(frame), burst.frame_len(frame));
    Sight { packet, head, frame_bytes, gso: burst.offload(frame).gso }
}

/// The scene of frame `frame`, which came in by `port`: by the uplink, what is in a tunnel comes out of it.
pub(crate) fn enter<'a>(
    program: &'a Program,
    shared: &'a Shared,
    (burst, frame): (&mut Burst, usize),
    port: PortNo,
    now: Now,
) -> Result<Scene<'a>, DropReason> {
    let plain = || Scene::of(program, port, shared, now).ok_or(DropReason::NoNetwork);
    let Some(underlay) = program.underlay().filter(|underlay| underlay.port == port) else { return plain() };
    if let Some(port) = vlan_of(burst.head(frame)).and_then(|vlan| underlay.port_of_vlan(vlan)) {
        pop_tag(burst, frame);
        return Scene::of(program, port, shared, now).ok_or(DropReason::NoNetwork);
    }
    let Some((tunnel, outer_bytes)) = tunnel::find(burst.head(frame), underlay)? else { return plain() };
    let port = underlay.port_of(tunnel.vni).ok_or(DropReason::UnknownVni)?;
    tunnel::unwrap(burst, frame, outer_bytes)?;
    let scene = Scene::of(program, port, shared, now).ok_or(DropReason::UnknownVni)?;
    Ok(Scene { tunnel: Some(tunnel), ..scene })
}

/// The VLAN of a frame whose head is `head`, if it has a tag.
fn vlan_of(head: &[u8]) -> Option<u16> {
    let ether_type = EtherType(u16::from_be_bytes([*head.get(12)?, *head.get(13)?]));
    let tag = (ether_type == EtherType::VLAN).then(|| vlan::View::new(&head[14..]).ok()).flatten()?;
    Some(tag.tci().vlan_id())
}

/// What becomes of a frame when its decision is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// What was decided.
    GoesOn,
    /// Its answer is in its place, as was decided.
    Answered,
    /// It cannot be routed as it is: its sender is told, in its place, or it is dropped.
    Refused(DropReason),
}

/// Carries `actions` out on frame `frame` of `burst`, which says `packet`.
#[inline(always)]
pub(crate) fn carry_out(
    actions: &Actions,
    (scene, packet): (&Scene<'_>, &Packet),
    (burst, frame): (&mut Burst, usize),
    budget: &mut Budget,
    (out, report): (&mut Outputs, &mut ProcessReport),
) -> Outcome {
    let Scene { program, network, now, .. } = *scene;
    let origin = scene.origin();
    let handled = |burst| Handled { burst, frame, packet, origin, network: network.number, program, now };
    match actions.output {
        // A complaint is about the packet that was sent: translated is what goes on.
        Output::Route(hop) => match handled(burst).route(hop, budget, (out, report)) {
            Ok(()) => Outcome::GoesOn,
            Err(reason) => Outcome::Refused(reason),
        },
        Output::Answer(answer) => {
            handled(burst).answer(answer, budget, (out, report));
            Outcome::Answered
        }
        _ => {
            actions.perform((burst, frame), (packet, origin), program, (out, report));
            Outcome::GoesOn
        }
    }
}

/// Gives frame `frame` of `burst` the addresses and ports that packets of `connection` leave with.
#[inline(never)]
pub(crate) fn translate(
    (scene, packet): (&Scene<'_>, &Packet),
    connection: Handle,
    (burst, frame): (&mut Burst, usize),
) {
    let connections = scene.shared.connections();
    if let Some(error) = sight(packet, burst, frame).error(scene.zone()) {
        let checksum = burst.offload(frame).checksum;
        connections.translate_error(connection, &error, burst.head_mut(frame), checksum);
    } else if let Some(to) = connections.translated(connection) {
        readdress(packet, &to, (burst, frame));
    }
}

/// Gives frame `frame` of `burst` the addresses and ports of `to`.
pub(crate) fn readdress(packet: &Packet, to: &Tuple, (burst, frame): (&mut Burst, usize)) {
    let layout = sight(packet, burst, frame).layout();
    let checksum = burst.offload(frame).checksum;
    rewrite(burst.head_mut(frame), layout, checksum, to);
}

/// A burst of which not every frame looks as its port's usually do. They are taken one after the other, so that those
/// which leave by one port stay in order.
struct Mixed<'a> {
    scene: Scene<'a>,
    cache: &'a mut Cache,
    /// What the frames say, once they are parsed.
    packets: &'a mut [Packet; BURST_FRAMES],
    budget: &'a mut Budget,
    habit: Option<Habit>,
    alike: Alike,
}

impl Mixed<'_> {
    /// Returns the frames that the habit answered.
    #[inline(never)]
    fn process(mut self, burst: &mut Burst, out: &mut Outputs, report: &mut ProcessReport) -> Alike {
        let mut answered = Alike::default();
        self.cache.begin();
        let parsed = self.parse_others(burst, report);
        let foreseen = self.cache.foresee(self.scene.ingress.number, self.packets, parsed);
        for frame in 0..burst.len() {
            if self.alike.has(frame) {
                if let Some(habit) = &self.habit {
                    answered.add(frame, burst.frame_len(frame));
                    habit.perform(burst, frame, out);
                } else if self.parse(burst, frame, report) {
                    // It was usual until something was derived.
                    self.answer(frame, NOWHERE, burst, (out, report));
                }
            } else if parsed >> frame & 1 != 0 {
                self.answer(frame, foreseen.0[frame], burst, (out, report));
            }
        }
        answered
    }

    /// Parses all frames that do not look as usual. Those whose bit is not set in what is returned have been dropped.
    fn parse_others(&mut self, burst: &Burst, report: &mut ProcessReport) -> u32 {
        let mut parsed = 0;
        let alike = self.alike;
        for frame in (0..burst.len()).filter(|frame| !alike.has(*frame)) {
            parsed |= u32::from(self.parse(burst, frame, report)) << frame;
        }
        parsed
    }

    /// Reads what frame `frame` says; false if that is a reason to drop it.
    #[inline(always)]
    fn parse(&mut self, burst: &Burst, frame: usize, report: &mut ProcessReport) -> bool {
        let gso = burst.offload(frame).gso;
        let port = self.scene.ingress.number;
        let raw = Raw { head: burst.head(frame), frame_bytes: burst.frame_len(frame), gso, port };
        match parse(raw, &mut self.packets[frame]) {
            Ok(()) => {
                if let Some(tunnel) = self.scene.tunnel {
                    self.packets[frame].set_node(tunnel.node);
                }
                true
            }
            Err(reason) => {
                report.drops.add(reason, 1);
                false
            }
        }
    }

    /// Decides on frame `frame`, whose decision may be at `foreseen`, and carries it out.
    #[inline(always)]
    fn answer(
        &mut self,
        frame: usize,
        foreseen: u32,
        burst: &mut Burst,
        (out, report): (&mut Outputs, &mut ProcessReport),
    ) {
        let actions = self.decide(foreseen, burst, frame, report);
        let packet = &self.packets[frame];
        let outcome = carry_out(&actions, (&self.scene, packet), (burst, frame), self.budget, (out, report));
        if let (Outcome::GoesOn, true, Some(connection)) = (outcome, actions.translate, actions.connection) {
            translate((&self.scene, packet), connection, (burst, frame));
        }
    }

    /// What is done with frame `frame`: out of a cache, perhaps at `foreseen`, or the pipeline's decision.
    #[inline(always)]
    fn decide(&mut self, foreseen: u32, burst: &Burst, frame: usize, report: &mut ProcessReport) -> Actions {
        let bytes = burst.frame_len(frame);
        let key = (&self.packets[frame].key, foreseen);
        let Some((actions, level)) = self.cache.lookup(key, bytes, self.scene.shared, self.scene.now) else {
            return self.derive(burst, frame, report);
        };
        let actions = *actions;
        if actions.asks_connections() {
            match self.ask_connections(&actions, burst, frame) {
                Ok(()) => {}
                Err(Fault::Gone) => return self.derive(burst, frame, report),
                Err(Fault::Invalid) => return Actions::drop(DropReason::OutOfState),
            }
        }
        match level {
            Level::Microflow => report.microflow_hits += 1,
            Level::Megaflow => report.megaflow_hits += 1,
        }
        if self.cache.is_habitual()
            && let Some(bytes) = burst.peek(frame)
        {
            self.cache.learn_habit(&self.packets[frame], bytes);
        }
        actions
    }

    /// What the connection of frame `frame` says about the cached decision `actions`: [`Fault::Gone`] if the pipeline is to
    /// decide anew.
    #[inline(always)]
    fn ask_connections(&self, actions: &Actions, burst: &Burst, frame: usize) -> Result<(), Fault> {
        let connections = self.scene.shared.connections();
        let Observed::Flow(_, transport) =
            sight(&self.packets[frame], burst, frame).observe(self.scene.zone())
        else {
            return Err(Fault::Gone);
        };
        if let Output::Deny(vacancy) = actions.output {
            return connections.is_vacant(vacancy).then_some(()).ok_or(Fault::Gone);
        }
        let Some(connection) = actions.connection else { return Ok(()) };
        connections.advance(connection, &transport, self.scene.now).map(drop)
    }

    /// The slow path: the pipeline decides, and the cache keeps the decision if it is not the frame's alone.
    #[cold]
    #[inline(never)]
    fn derive(&mut self, burst: &Burst, frame: usize, report: &mut ProcessReport) -> Actions {
        let packet = &self.packets[frame];
        report.misses += 1;
        let mut walk = Walk::new(self.scene, sight(packet, burst, frame));
        let actions = pipeline::run(&mut walk);
        self.cache.begin();
        if let Some(derived) = walk.derived(actions) {
            self.cache.insert(&packet.key, &derived, burst.frame_len(frame), self.scene.now);
        }
        // What was learned of this frame may be what the habit depended on.
        self.habit =
            self.habit.filter(|_| self.cache.habit(self.scene.ingress.number, self.scene.shared).is_some());
        actions
    }
}
