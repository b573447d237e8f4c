//! Do two addresses reach each other, and how fast? An echo client, so that no `ping` program is needed.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

use crate::Netns;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;

/// What became of a series of echo requests.
#[derive(Debug, Clone, Default)]
pub struct PingReport {
    /// Requests sent.
    pub sent: u32,
    /// Round-trip times of those answered, in order.
    pub round_trips: Vec<Duration>,
}

impl PingReport {
    /// Requests that nobody answered in time.
    pub fn lost(&self) -> u32 {
        self.sent - self.round_trips.len() as u32
    }

    /// The median round trip, if any request was answered.
    pub fn median(&self) -> Option<Duration> {
        let mut sorted = self.round_trips.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).copied()
    }
}

/// Sends `count` echo requests from inside `from` to `to`, each after the answer to the one before, waiting at most
/// `patience` for each (RFC 792).
///
/// # Errors
/// The socket's own: needs CAP_NET_RAW in the namespace.
pub fn ping(from: &Netns, to: Ipv4Addr, count: u32, patience: Duration) -> io::Result<PingReport> {
    from.run(|| {
        let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
        let mut report = PingReport::default();
        for sequence in 0..count {
            report.sent += 1;
            report.round_trips.extend(echo(&socket, to, sequence as u16, patience)?);
        }
        Ok(report)
    })
}

fn echo(socket: &OwnedFd, to: Ipv4Addr, sequence: u16, patience: Duration) -> io::Result<Option<Duration>> {
    let request = request(sequence);
    #[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    let start = Instant::now();
    // A route that is not there yet is a lost request, not a failed series.
    if sendto(socket, &request, SendFlags::empty(), &SocketAddrV4::new(to, 0)).is_err() {
        std::thread::sleep(patience.min(Duration::from_millis(100)));
        return Ok(None);
    }
    let mut buffer = [0; 1500];
    while let Some(left) = patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        set_socket_timeout(socket, Timeout::Recv, Some(left))?;
        let Ok((got, _)) = recv(socket, &mut buffer, RecvFlags::empty()) else { return Ok(None) };
        if is_answer(&buffer[..got], &request) {
            return Ok(Some(start.elapsed()));
        }
    }
    Ok(None)
}

fn request(sequence: u16) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = ECHO_REQUEST;
    bytes[4..6].copy_from_slice(&(std::process::id() as u16).to_be_bytes());
    bytes[6..8].copy_from_slice(&sequence.to_be_bytes());
    let sum =
        bytes.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
    bytes[2..4].copy_from_slice(&(!((sum & 0xffff) + (sum >> 16)) as u16).to_be_bytes());
    bytes
}

/// A raw socket gives the IP header too, and every ICMP message of the namespace.
fn is_answer(packet: &[u8], request: &[u8; 16]) -> bool {
    let header_bytes = packet.first().map_or(0, |first| usize::from(first & 0xf) * 4);
    let Some(message) = packet.get(header_bytes..) else { return false };
    message.first() == Some(&ECHO_REPLY) && message.get(4..8) == Some(&request[4..8])
}
