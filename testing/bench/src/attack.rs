//! What can one tenant do to the others? `millrace bench attack`. Somebody at a third port who sends crafted headers, slowly, such that a flow cache
//! which keeps one table per combination of looked-at bits gets as many tables as can be (a tuple-space explosion).
//!
//! The headers are those that hurt most where a tenant has the access list of [`RULES`]: each frame differs from every
//! allowed value in another bit, so each needs another combination of prefixes to show that nothing allows it. Others
//! differ in their type, tag and addresses, for switches that look at those.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use guest::load::{Flows, Load};
use guest::{Features, Guest, GuestError, Notify};
use wire::MacAddr;

use crate::case::{Case, FrameKind};
use crate::lab::{self, Plan};
use crate::options::Options;
use crate::report::Report;
use crate::rows;
use crate::subject::Subject;
use crate::traffic::LoadKind;

/// Between two frames of 64 bytes at 1 Mbit/s.
const PAUSE: Duration = Duration::from_micros(64 * 8);
/// The attack is at its height when each header has been sent once.
const HEADERS: u64 = 32 * 16 * 16;
/// Of so many frames one is of another kind.
const OTHERS: u64 = 8;
const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
const VICTIM: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
/// What its access list allows, each by itself.
const ALLOWED: (Ipv4Addr, u16, u16) = (Ipv4Addr::new(10, 0, 0, 3), 12_345, 80);
const VICTIM_IP: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The access list at the attacker's port, for switches that have such lists: whoever sends from the right address, or
/// from the right port, or to the right port, is let through.
pub(crate) const RULES: [&str; 4] = [
    "priority=30,in_port=3,udp,tp_dst=80,actions=NORMAL",
    "priority=30,in_port=3,udp,nw_src=10.0.0.3,actions=NORMAL",
    "priority=30,in_port=3,udp,tp_src=12345,actions=NORMAL",
    "priority=20,in_port=3,actions=drop",
];

const EXAMPLES: &str = "\
Examples:
  millrace bench attack                 two pods under attack by a third, against OVS-DPDK under the same attack

It needs root, two CPUs, about 3 GiB for huge pages, and OVS-DPDK (apt-get install openvswitch-switch-dpdk).";

/// What to measure.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct AttackArgs {
    /// Connections between the two others
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub flows: u32,
    #[command(flatten)]
    #[allow(missing_docs, reason = "the fields are documented where they are")]
    pub options: Options,
}

/// Measures, prints the table, and writes the files that `args` ask for. To be called outside of an async runtime.
///
/// # Errors
/// Something is missing (the text says what to install or to allow), or a subject failed, or the user stopped it.
pub fn run(args: &AttackArgs) -> anyhow::Result<()> {
    report(args).map(drop)
}

pub(crate) fn report(args: &AttackArgs) -> anyhow::Result<Report> {
    let flows = Flows::Connections(args.flows);
    // Unattacked first: what an attack leaves in the caches stays for seconds.
    let case = |attacked| Case { flows, attacked, ..Case::plain(FrameKind::Plain(64)) };
    let plan = Plan {
        row: rows::ATTACK,
        load: LoadKind::Light,
        switches: vec![vec![Subject::Millrace], vec![Subject::OvsNormal]],
        cases: vec![case(false), case(true)],
    };
    lab::run(&args.options.normalized()?, plan)
}

/// Frame `number` of the attack.
fn frame(number: u64) -> Vec<u8> {
    let (address, source_port, port) = ALLOWED;
    let address_bit = (number % 32) as u32;
    let [source_bit, bit] = [number / 32 % 16, number / 512 % 16].map(|bit| bit as u32);
    let source = Ipv4Addr::from_bits(address.to_bits() ^ 1 << address_bit);
    let path = wire::build::Path {
        source_mac: MAC,
        destination_mac: VICTIM,
        source: source.into(),
        destination: VICTIM_IP.into(),
    };
    let frame = wire::build::udp(path, (source_port ^ 1 << source_bit, port ^ 1 << bit), &[0; 22]);
    if !number.is_multiple_of(OTHERS) {
        return frame;
    }
    let station = MacAddr([2, 0, 0, 9, (number >> 8) as u8, number as u8]);
    match number / OTHERS % 4 {
        0 => wire::build::tagged(number as u16 & 0xfff, &frame),
        1 => wire::build::arp_request(station, source, VICTIM_IP),
        2 => wire::build::ethernet(station, VICTIM, wire::EtherType(number as u16 | 0x8000), &[0; 46]),
        _ => wire::build::udp(wire::build::Path { source_mac: station, ..path }, (1, 1), &[0; 22]),
    }
}

/// The tenant.
#[derive(Debug)]
pub(crate) struct Attacker {
    guest: Guest,
    sent: u64,
    /// When the next frame is due.
    due: Instant,
}

impl Attacker {
    /// Waits for the switch at `socket`.
    pub(crate) fn connect(socket: &Path, patience: Duration) -> anyhow::Result<Self> {
        let builder = Guest::builder().features(Features::PLAIN).notify(Notify::Poll).timeout(patience);
        let listener = builder.listen(socket).context("the attacker cannot listen")?;
        let guest = listener.accept(patience).context("the switch does not connect to the attacker")?;
        Ok(Self { guest, sent: 0, due: Instant::now() })
    }

    fn turn(&mut self) -> Result<(), GuestError> {
        let now = Instant::now();
        if now < self.due {
            return Ok(());
        }
        // After a pause it goes on at its pace, and makes up for nothing.
        self.due = now.max(self.due + PAUSE);
        match self.guest.send(&frame(self.sent)) {
            Ok(()) => self.sent += 1,
            // The switch is busy: the attacker comes again.
            Err(GuestError::RingFull { .. }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// A load, and perhaps somebody who attacks beside it.
pub(crate) struct UnderAttack<'a, L> {
    load: L,
    attacker: &'a mut Option<Attacker>,
}

impl<'a, L: Load> UnderAttack<'a, L> {
    pub(crate) fn new(load: L, attacker: &'a mut Option<Attacker>) -> Self {
        Self { load, attacker }
    }

    /// Some headers of the attack have not been sent yet.
    pub(crate) fn is_building_up(&self) -> bool {
        self.attacker.as_ref().is_some_and(|attacker| attacker.sent < HEADERS)
    }

    pub(crate) fn inner(&self) -> &L {
        &self.load
    }

    pub(crate) fn into_inner(self) -> L {
        self.load
    }
}

impl<L: Load> Load for UnderAttack<'_, L> {
    #[inline]
    fn turn(&mut self) -> Result<u64, GuestError> {
        if let Some(attacker) = self.attacker {
            attacker.turn()?;
        }
        self.load.turn()
    }

    fn frame_bytes(&self) -> usize {
        self.load.frame_bytes()
    }

    fn replace_lost(&mut self) -> Result<u64, GuestError> {
        self.load.replace_lost()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn headers_of_the_attack_are_all_different() {
        let kinds = (0..HEADERS).filter(|number| !number.is_multiple_of(OTHERS)).map(frame);
        let different: BTreeSet<Vec<u8>> = kinds.collect();
        assert_eq!(different.len() as u64, HEADERS - HEADERS / OTHERS);
    }

    #[test]
    fn no_header_of_the_attack_is_allowed() {
        let (address, source_port, port) = ALLOWED;
        for number in (0..HEADERS).filter(|number| !number.is_multiple_of(OTHERS)) {
            let frame = frame(number);
            assert_ne!(frame[26..30], address.octets());
            assert_ne!(frame[34..36], source_port.to_be_bytes());
            assert_ne!(frame[36..38], port.to_be_bytes());
        }
    }
}
