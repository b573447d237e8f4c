//! What does a frame cost by each mode of a port on an interface? `cargo run --release -p ports --example netdev`, as root
//!
//! Bursts cross a veth in private network namespaces, one after the other on one thread. Counted are cycles per frame: of the
//! polls that took frames (in), of sending them by the port (out), and of the other end's sending, which is the same in every
//! mode but for the kernel's work on what then comes in (deliver). Compare figures of one run only. Generic XDP runs on a
//! bridge above the veth, whose own work is in deliver and out.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "prints its result")]

use frame::{BURST_FRAMES, Burst, Offload};
use lab::Netns;
use ports::netdev::{self, Mode, NetdevSpec, Take};
use ports::{Device, cycles};

const BURSTS: usize = 20_000;
const ROUNDS: usize = 5;
const WAYS: [(&str, &str, Mode); 3] =
    [("packet", "up0", Mode::Packet), ("XDP native", "up0", Mode::Xdp), ("XDP generic", "br0", Mode::Xdp)];

fn main() -> std::io::Result<()> {
    println!("{:>12} {:>6} {:>8} {:>8} {:>8} {:>8}", "mode", "bytes", "deliver", "in", "out", "lost");
    for bytes in [64, 1400] {
        let mut best = [[f64::MAX; 4]; WAYS.len()];
        for _ in 0..ROUNDS {
            for (best, (_, netdev, mode)) in best.iter_mut().zip(WAYS) {
                for (best, new) in best.iter_mut().zip(measure(netdev, mode, bytes)?) {
                    *best = best.min(new);
                }
            }
        }
        for ((name, ..), [deliver, inward, outward, lost]) in WAYS.iter().zip(best) {
            println!("{name:>12} {bytes:>6} {deliver:>8.0} {inward:>8.0} {outward:>8.0} {lost:>8.4}");
        }
    }
    Ok(())
}

fn open(netns: &Netns, netdev: &str, mode: Mode) -> std::io::Result<Device> {
    let spec = NetdevSpec { netdev: netdev.to_owned(), take: Take::All, mode };
    netns.run(|| netdev::open(&spec).map_err(std::io::Error::other))
}

fn burst(bytes: usize) -> Burst {
    let mut burst = Burst::new();
    for _ in 0..BURST_FRAMES {
        let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0x88, 0xb5];
        let frame = [&header[..], &vec![7; bytes - header.len()]].concat();
        burst.push_owned(frame, Offload::NONE).expect("a burst holds as many");
    }
    burst
}

/// Cycles per frame to deliver, in and out, and the part that never came in.
fn measure(netdev: &str, mode: Mode, bytes: usize) -> std::io::Result<[f64; 4]> {
    let (node, outside) = (Netns::new()?, Netns::new()?);
    node.ip("link add up0 type veth peer name eth0")?;
    node.ip(&format!("link set eth0 netns {}", outside.path().display()))?;
    if netdev != "up0" {
        node.ip(&format!("link add {netdev} type bridge"))?;
        node.ip(&format!("link set up0 master {netdev}"))?;
        node.ip(&format!("link set {netdev} up"))?;
    }
    node.ip("link set up0 up")?;
    outside.ip("link set eth0 up")?;
    let (mut port, sender) = (open(&node, netdev, mode)?, open(&outside, "eth0", Mode::Packet)?);
    let frames: Vec<u8> = (0..BURST_FRAMES as u8).collect();
    let (sent, mut room) = (burst(bytes), Burst::new());
    let (mut deliver, mut inward, mut outward, mut received) = (0, 0, 0, 0);
    for _ in 0..BURSTS {
        let start = cycles::now();
        sender.tx[0].send(&sent, &frames);
        deliver += cycles::now() - start;
        loop {
            let start = cycles::now();
            let report = port.rx[0].poll(&mut room, &mut |_| ());
            if report.frames == 0 {
                break;
            }
            inward += cycles::now() - start;
            received += report.frames;
        }
        let start = cycles::now();
        port.tx[0].send(&sent, &frames);
        outward += cycles::now() - start;
    }
    let all = (BURSTS * BURST_FRAMES) as f64;
    let each = |cycles: u64| cycles as f64 / all;
    // The kernel itself may send a frame or two by a new interface.
    let lost = (1.0 - received as f64 / all).max(0.0);
    Ok([each(deliver), inward as f64 / received.max(1) as f64, each(outward), lost])
}
