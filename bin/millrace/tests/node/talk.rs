//! Who answers whom? Servers that say the client's address, and those who ask them.

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use lab::Netns;

use super::PATIENCE;

/// Answers each connection to port `port` of a namespace with the client's address, for as long as the test runs.
pub(crate) fn serve(netns: &Netns, port: u16) {
    // Both families: IPv4's clients are mapped.
    let listener = netns.run(move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, client)) = listener.accept() {
            let _ = write!(stream, "{}", client.ip().to_canonical());
        }
    });
}

/// What a server says to somebody in a namespace; none if it does not within a second or two.
pub(crate) fn ask(netns: &Netns, server: SocketAddr) -> Option<String> {
    let said = netns.run(move || {
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_millis(1500))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    });
    said.ok()
}
