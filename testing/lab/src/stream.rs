//! How much TCP passes between two namespaces? A sender with a fixed message size and a receiver that counts.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Netns;

/// The receiver's view of one stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamReport {
    /// Bytes received.
    pub bytes: u64,
    /// From the first byte to the last.
    pub duration: Duration,
}

impl StreamReport {
    /// Payload per second in Gbit/s.
    pub fn gbps(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.duration.as_secs_f64().max(1e-9) / 1e9
    }
}

/// Writes messages of `message_bytes` from `client` to `address` inside `server` for `duration`. The kernel may
/// put small messages together, as it does for any program that does not ask otherwise.
///
/// # Errors
/// Connecting, writing or reading failed.
pub fn stream(
    client: &Netns,
    server: &Netns,
    address: IpAddr,
    message_bytes: usize,
    duration: Duration,
) -> io::Result<StreamReport> {
    let listener = server.run(|| TcpListener::bind(SocketAddr::new(address, 0)))?;
    let at = listener.local_addr()?;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| client.run(|| send(at, message_bytes, &stop)));
        let report = receive(&listener, duration);
        stop.store(true, Ordering::Relaxed);
        let sent = sender.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let report = report?;
        sent.map(|()| report)
    })
}

fn send(to: SocketAddr, message_bytes: usize, stop: &AtomicBool) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_write_timeout(Some(Duration::from_secs(5)))?;
    let message = vec![0x5a; message_bytes];
    while !stop.load(Ordering::Relaxed) {
        match stream.write_all(&message) {
            Ok(()) => {}
            // The receiver has seen enough and left.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn receive(listener: &TcpListener, duration: Duration) -> io::Result<StreamReport> {
    let mut stream = accept(listener)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut buffer = vec![0; 256 * 1024];
    stream.read_exact(&mut buffer[..1])?;
    #[allow(clippy::disallowed_methods, reason = "a measurement reads the clock")]
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < duration {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => bytes += got as u64,
            // A read with a timeout is not begun again by the kernel.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(StreamReport { bytes, duration: start.elapsed() })
}

/// A sender that cannot connect must not leave us waiting for ever.
fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    #[allow(clippy::disallowed_methods, reason = "a deadline for a peer that never comes")]
    let start = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                return Ok(stream);
            }
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock && start.elapsed() < Duration::from_secs(6) =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error),
        }
    }
}
