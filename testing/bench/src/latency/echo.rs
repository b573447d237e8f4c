//! How long does a question take from pod to pod and back? TCP, one question at a time, both ends in this process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use lab::Netns;

use super::{Pace, WARM_UP};
use crate::netns::ADDRESSES;

/// Bytes of a question and of its answer.
pub(super) const MESSAGE_BYTES: usize = 64;
/// An answer that does not come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Round trips between `pods` for `time`, in nanoseconds. The threads run where the caller does.
pub(super) fn round_trips(pods: &[Netns; 2], pace: Pace, time: Duration) -> anyhow::Result<Vec<u64>> {
    let [asking, answering] = connect(pods).context("connecting from pod to pod")?;
    thread::scope(|scope| {
        let answerer = scope.spawn(|| answer(answering));
        let trips = ask(asking, pace, time).context("an answer did not come");
        // The asking end is closed by now, which ends the other.
        answerer.join().map_err(|_| anyhow::anyhow!("the answering thread panicked"))??;
        trips
    })
}

/// A connection, without a thread that could wait for it in vain: the kernel completes it before it is accepted.
fn connect(pods: &[Netns; 2]) -> std::io::Result<[TcpStream; 2]> {
    let listener = pods[1].run(|| TcpListener::bind(SocketAddr::new(ADDRESSES[1].into(), 0)))?;
    let address = listener.local_addr()?;
    let asking = pods[0].run(|| TcpStream::connect_timeout(&address, PATIENCE))?;
    let (answering, _) = listener.accept()?;
    for end in [&asking, &answering] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(2 * PATIENCE))?;
    }
    asking.set_read_timeout(Some(PATIENCE))?;
    Ok([asking, answering])
}

fn answer(mut end: TcpStream) -> std::io::Result<()> {
    let mut message = [0; MESSAGE_BYTES];
    loop {
        match end.read(&mut message)? {
            0 => return Ok(()),
            bytes => end.write_all(&message[..bytes])?,
        }
    }
}

fn ask(mut end: TcpStream, pace: Pace, time: Duration) -> std::io::Result<Vec<u64>> {
    let mut message = [0; MESSAGE_BYTES];
    let mut trips = Vec::new();
    let start = Instant::now();
    while start.elapsed() < WARM_UP + time {
        pace.rest();
        let asked = Instant::now();
        end.write_all(&message)?;
        end.read_exact(&mut message)?;
        if start.elapsed() > WARM_UP {
            trips.push(asked.elapsed().as_nanos() as u64);
        }
    }
    Ok(trips)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_when_an_end_echoes_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let asking = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (answering, _) = listener.accept().unwrap();
        thread::scope(|scope| {
            let answerer = scope.spawn(|| answer(answering));
            let trips = ask(asking, Pace::Busy, Duration::from_millis(50)).unwrap();
            assert!(!trips.is_empty());
            answerer.join().unwrap().unwrap();
        });
    }
}
