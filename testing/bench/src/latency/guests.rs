//! How long does a frame take from one vhost-user guest to the other? Two guests with their notifications on, as VMs have.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use guest::{Features, Guest, Listener, Notify};

use super::{Pace, WARM_UP};
use crate::millrace::IPS;
use crate::subject::{MACS, Switch};

/// How long a switch may take to connect and to forward the first frame.
const PATIENCE: Duration = Duration::from_secs(20);
/// A frame that does not come.
const LOST: Duration = Duration::from_secs(1);
pub(super) const FRAME_BYTES: usize = 64;
const HEADERS_BYTES: usize = 14 + 20 + 8;

/// The guests of one switch, and what they send to each other.
#[derive(Debug)]
pub(super) struct Pair {
    guests: [Guest; 2],
    frames: [Vec<u8>; 2],
}

impl Pair {
    /// Waits until `switch`, which must be running, has connected to both and knows where they are.
    pub(super) fn connect(switch: &dyn Switch) -> anyhow::Result<Self> {
        let builder = Guest::builder()
            .features(Features::RINGS)
            .notify(Notify::Interrupt)
            .huge_pages(true)
            .timeout(PATIENCE);
        let [first, second, _] = switch.sockets();
        let listen = |path| builder.clone().listen(path).context("a guest cannot listen");
        let listeners = [listen(first)?, listen(second)?];
        let accept =
            |listener: Listener| listener.accept(PATIENCE).context("the switch does not connect to a guest");
        let [first, second] = listeners;
        let mut pair = Self { guests: [accept(first)?, accept(second)?], frames: [frame(0)?, frame(1)?] };
        pair.await_path()?;
        Ok(pair)
    }

    /// Sends single frames both ways until both arrive.
    pub(super) fn await_path(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        for from in [0, 1] {
            loop {
                self.guests[from].send(&self.frames[from])?;
                if self.guests[1 - from].recv(Duration::from_millis(20))?.is_some() {
                    break;
                }
                ensure!(Instant::now() < deadline, "the switch forwards nothing");
            }
        }
        for guest in &mut self.guests {
            while guest.recv(Duration::from_millis(5))?.is_some() {}
        }
        Ok(())
    }

    /// Round trips for `time`, in nanoseconds: each guest blocks until the switch signals a frame.
    pub(super) fn round_trips(&mut self, time: Duration) -> anyhow::Result<Vec<u64>> {
        measure(time, Pace::Busy, || {
            let sent = Instant::now();
            for from in [0, 1] {
                self.guests[from].send(&self.frames[from])?;
                if self.guests[1 - from].recv(LOST)?.is_none() {
                    bail!("a frame was lost");
                }
            }
            Ok(sent.elapsed())
        })
    }

    /// One way, a frame now and then, in nanoseconds: from before the kick until the other guest, which looks all the
    /// time, sees the frame.
    pub(super) fn wake_ups(&mut self, time: Duration) -> anyhow::Result<Vec<u64>> {
        measure(time, Pace::Idle, || {
            let sent = Instant::now();
            self.guests[0].send(&self.frames[0])?;
            while self.guests[1].recv_on(0)?.is_none() {
                ensure!(sent.elapsed() < LOST, "a frame was lost");
                std::hint::spin_loop();
            }
            Ok(sent.elapsed())
        })
    }
}

fn measure(
    time: Duration,
    pace: Pace,
    mut once: impl FnMut() -> anyhow::Result<Duration>,
) -> anyhow::Result<Vec<u64>> {
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < WARM_UP + time {
        pace.rest();
        let took = once()?;
        if start.elapsed() > WARM_UP {
            times.push(took.as_nanos() as u64);
        }
    }
    Ok(times)
}

/// The frame that guest `from` sends to the other.
fn frame(from: usize) -> anyhow::Result<Vec<u8>> {
    let to = 1 - from;
    let path = wire::build::Path {
        source_mac: wire::MacAddr(MACS[from]),
        destination_mac: wire::MacAddr(MACS[to]),
        source: IPS[from].parse()?,
        destination: IPS[to].parse()?,
    };
    Ok(wire::build::udp(path, (40_000, 5_000), &[0; FRAME_BYTES - HEADERS_BYTES]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_when_built_is_as_long_as_reported() {
        assert_eq!(frame(0).unwrap().len(), FRAME_BYTES);
        assert_ne!(frame(0).unwrap(), frame(1).unwrap());
    }
}
