//! Who keeps the two ports busy? Two guests of our own with a load that is lighter than any switch, or dpdk-testpmd.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use guest::load::{LightLoad, Load, MacSwapLoad};
use guest::{Features, Guest, Listener, NetHeader, Notify};
use serde::Serialize;

use crate::millrace::IPS;
use crate::process::Process;
use crate::subject::MACS;

/// How long a switch may take to connect and to forward the first frame.
const PATIENCE: Duration = Duration::from_secs(20);
/// Traffic before a sample that is not counted: caches fill, a sleeping worker wakes, flows are set up.
const WARM_UP: Duration = Duration::from_millis(100);
const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const TCP_BYTES: usize = 20;
/// Payload of a TCP segment at an MTU of 1500.
const MSS_BYTES: u16 = 1460;
/// Segments in one large frame: 64 KB less what the last one would exceed.
const SEGMENTS: usize = 44;

/// What drives the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LoadKind {
    /// One way; recycles descriptors, never touches a payload
    Light,
    /// To and fro; reads and writes each frame's addresses, rewrites each descriptor
    Macswap,
    /// To and fro by dpdk-testpmd; soon slower than the switch
    Testpmd,
}

impl LoadKind {
    /// As the report names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Light => "light",
            Self::Macswap => "macswap",
            Self::Testpmd => "testpmd",
        }
    }
}

/// What frames are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FrameKind {
    /// UDP, so many bytes from the Ethernet header on, without the check sequence.
    Plain(u16),
    /// TCP, 64 KB to be segmented.
    Large,
}

impl std::str::FromStr for FrameKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(bytes @ 60..=1514) => Ok(Self::Plain(bytes)),
            Err(_) if text.eq_ignore_ascii_case("tso") => Ok(Self::Large),
            _ => Err("a frame is 60 to 1514 bytes long, or `tso`".into()),
        }
    }
}

impl FrameKind {
    /// As the table names it.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Plain(bytes) => format!("{bytes} B"),
            Self::Large => "64 KB TSO".into(),
        }
    }

    /// From the first byte of the Ethernet header to the last of the payload.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Plain(bytes) => bytes.into(),
            Self::Large => ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES + SEGMENTS * usize::from(MSS_BYTES),
        }
    }

    /// The frame from one guest to the other.
    fn frame(self, from: usize) -> (NetHeader, Vec<u8>) {
        let to = 1 - from;
        let path = wire::build::Path {
            source_mac: wire::MacAddr(MACS[from]),
            destination_mac: wire::MacAddr(MACS[to]),
            source: address(from).into(),
            destination: address(to).into(),
        };
        match self {
            Self::Plain(_) => {
                let payload = vec![0; self.bytes() - ETHERNET_BYTES - IPV4_BYTES - UDP_BYTES];
                (NetHeader::default(), wire::build::udp(path, (40_000, 5_000), &payload))
            }
            Self::Large => {
                let header = wire::tcp::Repr {
                    source_port: 40_000,
                    destination_port: 5_000,
                    sequence: 1,
                    acknowledgement: 1,
                    flags: wire::tcp::Flags::ACK,
                    window: 65_535,
                    urgent: 0,
                    options: &[],
                };
                let payload = vec![0; SEGMENTS * usize::from(MSS_BYTES)];
                let mut frame = wire::build::tcp(path, &header, &payload);
                let start = ETHERNET_BYTES + IPV4_BYTES;
                // Left partial, as a kernel leaves it: only the pseudo header's sum.
                let len = (frame.len() - start) as u16;
                let pseudo =
                    wire::checksum::pseudo_v4(address(from), address(to), wire::IpProtocol::TCP, len);
                frame[start + 16..start + 18].copy_from_slice(&pseudo.fold().to_be_bytes());
                (NetHeader::tcp_segments(NetHeader::GSO_TCPV4, start as u16, MSS_BYTES), frame)
            }
        }
    }
}

fn address(index: usize) -> Ipv4Addr {
    IPS[index].parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// What was moved in one sample, as the load saw it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moved {
    /// None if the load does not count: the worker does.
    pub(crate) frames: Option<u64>,
    pub(crate) lost: u64,
    pub(crate) elapsed: Duration,
}

/// A load on the two ports of one switch.
#[derive(Debug)]
pub(crate) enum Traffic {
    /// Ours.
    Guests(Box<Pair>),
    /// dpdk-testpmd, paused between samples.
    Testpmd(Process),
}

impl Traffic {
    /// Sets up `kind` for frames of `frame` between the two `sockets`, which the switch connects to.
    pub(crate) fn start(
        kind: LoadKind,
        frame: FrameKind,
        sockets: [PathBuf; 2],
        cpu: usize,
    ) -> anyhow::Result<Self> {
        match kind {
            LoadKind::Testpmd => testpmd(frame, &sockets, cpu).map(Self::Testpmd),
            LoadKind::Light | LoadKind::Macswap => {
                let large = frame == FrameKind::Large;
                ensure!(!large || kind == LoadKind::Light, "64 KB frames are for the light load only");
                Ok(Self::Guests(Box::new(Pair { kind, frame, sockets, guests: None })))
            }
        }
    }

    /// Makes sure that frames pass. The switch must be running.
    pub(crate) fn prepare(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Guests(pair) => pair.prepare(),
            Self::Testpmd(process) => {
                process.resume();
                await_prompt(process)?;
                process.tell("start tx_first 8")
            }
        }
    }

    /// Moves frames for `time`, after a warm-up. `begin` is called between the two.
    pub(crate) fn run(
        &mut self,
        time: Duration,
        begin: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Moved> {
        match self {
            Self::Guests(pair) => pair.run(time, begin),
            Self::Testpmd(process) => {
                std::thread::sleep(WARM_UP);
                begin()?;
                let start = Instant::now();
                std::thread::sleep(time);
                process.check()?;
                Ok(Moved { frames: None, lost: 0, elapsed: start.elapsed() })
            }
        }
    }

    /// Ends what [`Traffic::prepare`] began.
    pub(crate) fn settle(&mut self) -> anyhow::Result<()> {
        match self {
            Self::Guests(pair) => pair.settle(),
            Self::Testpmd(process) => {
                process.tell("stop")?;
                // So that it stops as told before it is stopped.
                std::thread::sleep(WARM_UP);
                process.pause();
                Ok(())
            }
        }
    }
}

/// Two guests.
#[derive(Debug)]
pub(crate) struct Pair {
    kind: LoadKind,
    frame: FrameKind,
    sockets: [PathBuf; 2],
    guests: Option<[Guest; 2]>,
}

impl Pair {
    fn connect(&self) -> anyhow::Result<[Guest; 2]> {
        let large = self.frame == FrameKind::Large;
        // Polling rings of a DPDK program; a page per buffer for large frames, as Linux gives.
        let mut features =
            Features::PLAIN | Features::MRG_RXBUF | Features::INDIRECT_DESC | Features::IN_ORDER;
        if large {
            features |= Features::OFFLOADS;
        }
        let builder = Guest::builder()
            .features(features)
            .notify(Notify::Poll)
            .huge_pages(true)
            .timeout(PATIENCE)
            .buffer_bytes(if large { 4096 } else { 2048 });
        let [first, second] = &self.sockets;
        let listen = |path: &Path| builder.clone().listen(path).context("a guest cannot listen");
        let listeners = [listen(first)?, listen(second)?];
        let accept =
            |listener: Listener| listener.accept(PATIENCE).context("the switch does not connect to a guest");
        let [first, second] = listeners;
        let guests = [accept(first)?, accept(second)?];
        if large {
            let wanted = Features::HOST_TSO4 | Features::GUEST_TSO4 | Features::MRG_RXBUF;
            for guest in &guests {
                ensure!(guest.features().contains(wanted), "the switch does not offer {wanted:?}");
            }
        }
        Ok(guests)
    }

    /// Connects if necessary, and sends single frames both ways until both arrive: the switch has then learned where the
    /// guests are.
    fn prepare(&mut self) -> anyhow::Result<()> {
        let mut guests = match self.guests.take() {
            Some(guests) => guests,
            None => self.connect()?,
        };
        let deadline = Instant::now() + PATIENCE;
        let mut arrived = [false; 2];
        while arrived != [true; 2] {
            ensure!(
                Instant::now() < deadline,
                "the switch forwards nothing (seen at the guests: {arrived:?})"
            );
            for from in [1, 0] {
                let to = 1 - from;
                let (_, hello) = FrameKind::Plain(60).frame(from);
                guests[from].send(&hello)?;
                arrived[to] |= guests[to].recv(Duration::from_millis(20))?.is_some();
            }
        }
        drain(&mut guests)?;
        self.guests = Some(guests);
        Ok(())
    }

    fn run(
        &mut self,
        time: Duration,
        begin: &mut dyn FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<Moved> {
        let Some([first, second]) = &mut self.guests else { bail!("the guests are not connected") };
        let (header, frame) = self.frame.frame(0);
        let mut load: Box<dyn Load + '_> = match self.kind {
            LoadKind::Macswap => Box::new(MacSwapLoad::new(first, second, &frame)?),
            _ => Box::new(LightLoad::new(first, second, &header, &frame)?),
        };
        load.run(WARM_UP)?;
        begin()?;
        let report = load.run(time)?;
        Ok(Moved { frames: Some(report.frames), lost: report.lost, elapsed: report.elapsed })
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        match (self.kind, &mut self.guests) {
            (LoadKind::Light, Some(guests)) => drain(guests),
            _ => {
                // That load leaves the rings as no single frame can use them: the next sample has new guests.
                self.guests = None;
                Ok(())
            }
        }
    }
}

/// Waits until nothing is on its way.
fn drain(guests: &mut [Guest; 2]) -> anyhow::Result<()> {
    for guest in guests.iter_mut() {
        ensure!(guest.flush(PATIENCE)?, "the switch does not take what was sent");
    }
    for guest in guests.iter_mut() {
        while guest.recv(Duration::from_millis(2))?.is_some() {}
    }
    Ok(())
}

/// testpmd asks for commands once the switch has connected to both of its ports.
fn await_prompt(process: &mut Process) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !process.log().contains("testpmd>") {
        process.check()?;
        ensure!(Instant::now() < deadline, "the switch does not connect to testpmd");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// dpdk-testpmd, which forwards between its two ports with addresses that suit a learning switch.
fn testpmd(frame: FrameKind, sockets: &[PathBuf; 2], cpu: usize) -> anyhow::Result<Process> {
    let FrameKind::Plain(bytes) = frame else { bail!("64 KB frames are for the light load only") };
    let folder = sockets[0].parent().unwrap_or(Path::new("/tmp"));
    for socket in sockets {
        // Left by the testpmd before, which the switch, being stopped, did not let end well; a new one refuses it.
        let _none_left = std::fs::remove_file(socket);
    }
    let mac = |index: usize| MACS[index].map(|byte| format!("{byte:02x}")).join(":");
    Process::start(Path::new("dpdk-testpmd"), cpu, folder, |command| {
        command.args(["--lcores", &format!("0@{cpu},1@{cpu}"), "--no-pci", "--in-memory"]);
        command.args(["--single-file-segments", "-m", "256", "--no-telemetry"]);
        for (index, socket) in sockets.iter().enumerate() {
            command.arg(format!(
                "--vdev=net_virtio_user{index},path={},server=1,queues=1,mac={}",
                socket.display(),
                mac(index)
            ));
        }
        command.args(["--", "--interactive", "--nb-cores=1", "--forward-mode=mac", "--no-lsc-interrupt"]);
        command.args([&format!("--txpkts={bytes}"), &format!("--tx-ip={}", IPS.join(","))]);
        for index in [0, 1] {
            command.arg(format!("--eth-peer={index},{}", mac(1 - index)));
        }
    })
}
