//! The load of small packets: how many UDP datagrams arrive that are frames of 64 bytes, one way, from pod to pod?
//!
//! Sender and receiver are threads of this process, each of which moves many datagrams by one system call (`sendmmsg`,
//! `recvmmsg`). The sender is never more than a window ahead of the receiver, so that the rate is one which the path
//! sustains without loss. Measured on a test machine, a sender without that bound brought no more through TAP ports, lost
//! two thirds of what it sent, and spent a good part of two CPUs on it. Who sets the rate:
//!
//! - the sender, if it hardly waits: its own kernel's work for each datagram, and over a veth the whole way, which is
//!   gone in the sender's calls;
//! - the switch, if it uses its whole CPU;
//! - else all of them together, which share two CPUs.
//!
//! Each datagram goes through both pods' kernels by itself, with its own route, queue and wake-up. That is most of the CPU
//! time of every contender; what a switch costs without it is `bench vhost`.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use lab::Netns;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg};
use rustix::net::sockopt::{set_socket_recv_buffer_size_force, set_socket_send_buffer_size_force};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, sendmmsg};

use super::contender::Spent;
use crate::netns::ADDRESSES;

/// From the Ethernet header on, without the check sequence.
pub(super) const FRAME_BYTES: usize = 64;
/// Ethernet, IPv4, UDP.
const HEADERS_BYTES: usize = 14 + 20 + 8;
const PAYLOAD_BYTES: usize = FRAME_BYTES - HEADERS_BYTES;
/// Datagrams that one call moves.
const BATCH: usize = 64;
/// Datagrams under way: half of what fits into the shortest queue of any contender, a TAP netdev's (500).
const WINDOW: u64 = 256;
/// A sender that has filled the window goes on when half of it is free: it sleeps less often.
const ENOUGH: u64 = WINDOW / 2;
/// The shortest sleep: the kernel adds some fifty microseconds to it, in which less than half a window arrives.
const REST: Duration = Duration::from_micros(1);
/// If nothing arrives for so long, what is under way is lost.
const STALL: Duration = Duration::from_millis(50);
/// Traffic before the sample that is not counted.
const WARM_UP: Duration = Duration::from_millis(100);
/// What arrives later than this after the last is lost.
const LATEST: Duration = Duration::from_millis(200);
/// Room for a window in a socket, whatever the kernel adds to each datagram.
const SOCKET_BYTES: usize = 4 << 20;

/// What one sample moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Flow {
    /// Datagrams received in the sample.
    pub(crate) packets: u64,
    pub(crate) elapsed: Duration,
    /// Of all that were sent.
    pub(crate) lost_fraction: f64,
    /// The share of the sample in which the sender waited for the window.
    pub(crate) waited_fraction: f64,
}

impl Flow {
    /// Million packets per second, at the receiver.
    pub(crate) fn mpps(&self) -> f64 {
        self.packets as f64 / self.elapsed.as_secs_f64() / 1e6
    }
}

/// Sends from the first pod to the second for `time`; `spent` is asked for the CPU time when the sample begins and ends.
pub(super) fn flow(
    pods: &[Netns; 2],
    time: Duration,
    spent: impl Fn() -> Spent,
) -> anyhow::Result<(Flow, Spent)> {
    let [sending, receiving] = connect(pods).context("sockets in the pods")?;
    run([&sending, &receiving], time, spent)
}

/// A socket in each pod, the first connected to the second.
fn connect(pods: &[Netns; 2]) -> io::Result<[UdpSocket; 2]> {
    let bind =
        |index: usize| pods[index].run(|| UdpSocket::bind(SocketAddr::new(ADDRESSES[index].into(), 0)));
    let [sending, receiving] = [bind(0)?, bind(1)?];
    sending.connect(receiving.local_addr()?)?;
    set_socket_send_buffer_size_force(&sending, SOCKET_BYTES)?;
    set_socket_recv_buffer_size_force(&receiving, SOCKET_BYTES)?;
    Ok([sending, receiving])
}

/// What the two ends tell each other and the observer.
#[derive(Debug, Default)]
struct Ledger {
    sent: AtomicU64,
    received: AtomicU64,
    waited_ns: AtomicU64,
    /// The sender is to stop.
    over: AtomicBool,
    /// It has.
    quiet: AtomicBool,
}

/// The ledger at one moment.
struct Entry {
    at: Instant,
    received: u64,
    waited_ns: u64,
    spent: Spent,
}

impl Ledger {
    fn entry(&self, spent: &impl Fn() -> Spent) -> Entry {
        Entry {
            at: Instant::now(),
            received: self.received.load(Ordering::Relaxed),
            waited_ns: self.waited_ns.load(Ordering::Relaxed),
            spent: spent(),
        }
    }

    fn lost_fraction(&self) -> f64 {
        let [sent, received] = [&self.sent, &self.received].map(|count| count.load(Ordering::Relaxed));
        sent.saturating_sub(received) as f64 / sent.max(1) as f64
    }
}

fn run(
    [sending, receiving]: [&UdpSocket; 2],
    time: Duration,
    spent: impl Fn() -> Spent,
) -> anyhow::Result<(Flow, Spent)> {
    // An end that hangs would hang the benchmark.
    sending.set_write_timeout(Some(LATEST))?;
    receiving.set_read_timeout(Some(LATEST))?;
    let ledger = Ledger::default();
    let [before, after] = thread::scope(|scope| {
        let sender = scope.spawn(|| send(sending, &ledger));
        let receiver = scope.spawn(|| receive(receiving, &ledger));
        thread::sleep(WARM_UP);
        let before = ledger.entry(&spent);
        thread::sleep(time);
        let after = ledger.entry(&spent);
        ledger.over.store(true, Ordering::Relaxed);
        let sent = sender.join().map_err(|_| anyhow!("the sending thread panicked"));
        ledger.quiet.store(true, Ordering::Relaxed);
        let received = receiver.join().map_err(|_| anyhow!("the receiving thread panicked"));
        sent?.context("sending datagrams")?;
        received?.context("receiving datagrams")?;
        anyhow::Ok([before, after])
    })?;
    let elapsed = after.at - before.at;
    let waited_ns = after.waited_ns - before.waited_ns;
    let flow = Flow {
        packets: after.received - before.received,
        elapsed,
        lost_fraction: ledger.lost_fraction(),
        waited_fraction: (waited_ns as f64 / elapsed.as_nanos() as f64).min(1.0),
    };
    ensure!(flow.packets > 0, "no datagram arrived");
    Ok((flow, after.spent.since(before.spent)))
}

/// Sends until it is over.
fn send(socket: &UdpSocket, ledger: &Ledger) -> io::Result<()> {
    let payload = [0x5a; PAYLOAD_BYTES];
    let slices = [IoSlice::new(&payload)];
    let mut nothing: [SendAncillaryBuffer<'_, '_, '_>; BATCH] = std::array::from_fn(|_| Default::default());
    let mut batch: Vec<MMsgHdr<'_>> =
        nothing.iter_mut().map(|control| MMsgHdr::new(&slices, control)).collect();
    let mut window = Window::default();
    while !ledger.over.load(Ordering::Relaxed) {
        let received = ledger.received.load(Ordering::Relaxed);
        if window.room(received) < BATCH as u64 {
            window.wait(ledger);
            continue;
        }
        match sendmmsg(socket, &mut batch, SendFlags::empty()) {
            Ok(count) => window.sent += count as u64,
            // A queue on the way has no room: as if the window were full.
            Err(rustix::io::Errno::NOBUFS) => thread::sleep(REST),
            Err(error) => return Err(error.into()),
        }
        ledger.sent.store(window.sent, Ordering::Relaxed);
    }
    Ok(())
}

/// How far the sender is ahead.
#[derive(Debug, Default)]
struct Window {
    sent: u64,
    /// Given up, so that others may be sent.
    lost: u64,
}

impl Window {
    /// How many more may be sent. What was given up and arrives nevertheless does no harm.
    fn room(&self, received: u64) -> u64 {
        WINDOW.saturating_sub(self.sent.saturating_sub(received + self.lost))
    }

    /// Waits until there is room enough, or no hope.
    fn wait(&mut self, ledger: &Ledger) {
        let start = Instant::now();
        let (mut seen, mut since) = (ledger.received.load(Ordering::Relaxed), start);
        while !ledger.over.load(Ordering::Relaxed) {
            thread::sleep(REST);
            let (received, now) = (ledger.received.load(Ordering::Relaxed), Instant::now());
            if self.room(received) >= ENOUGH {
                break;
            }
            if received != seen {
                (seen, since) = (received, now);
            } else if now - since > STALL {
                self.lost = self.sent.saturating_sub(received);
            }
        }
        ledger.waited_ns.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }
}

/// Receives until nothing comes any more.
fn receive(socket: &UdpSocket, ledger: &Ledger) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_fd();
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    let mut payloads = [[0; PAYLOAD_BYTES]; BATCH];
    loop {
        let mut slices = payloads.each_mut().map(|payload| [IoSliceMut::new(payload)]);
        // Blocks for the first one only.
        match recvmmsg(socket, &mut headers, &mut slices, MsgFlags::MSG_WAITFORONE, None) {
            Ok(datagrams) => {
                ledger.received.fetch_add(datagrams.count() as u64, Ordering::Relaxed);
            }
            Err(Errno::EAGAIN) if ledger.quiet.load(Ordering::Relaxed) => return Ok(()),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_when_the_window_is_full_is_none() {
        let mut window = Window { sent: WINDOW + 10, lost: 0 };
        assert_eq!(window.room(10), 0);
        assert_eq!(window.room(11), 1);
        window.lost = WINDOW;
        assert_eq!(window.room(10), WINDOW);
        assert_eq!(window.room(WINDOW + 10), WINDOW, "late ones do no harm");
    }

    #[test]
    fn flow_when_nothing_hinders_it_is_counted_and_loses_nothing() {
        let [sending, receiving] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        sending.connect(receiving.local_addr().unwrap()).unwrap();
        let spent = Spent { switch_ns: 7, machine_ns: 7 };
        let (flow, spent) = run([&sending, &receiving], Duration::from_millis(50), || spent).unwrap();
        assert!(flow.packets > 0 && flow.mpps() > 0.0, "{flow:?}");
        assert_eq!((flow.lost_fraction, spent), (0.0, Spent { switch_ns: 0, machine_ns: 0 }));
    }
}
