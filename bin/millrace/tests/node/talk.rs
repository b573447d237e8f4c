//! Who answers whom? Servers that say the client's address, and those who ask them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
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

/// Answers each datagram to port `port` of a namespace with the client's address and port, filled up to the datagram's length.
pub(crate) fn serve_datagrams(netns: &Netns, port: u16) {
    let socket = netns.run(move || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))).unwrap();
    std::thread::spawn(move || {
        let mut asked = vec![0; 1 << 16];
        while let Ok((bytes, client)) = socket.recv_from(&mut asked) {
            let seen = SocketAddr::new(client.ip().to_canonical(), client.port()).to_string();
            let _ = socket.send_to(format!("{seen:bytes$}").as_bytes(), client);
        }
    });
}

/// As whom a server of datagrams sees somebody in a namespace who sends it one of `bytes` bytes.
///
/// # Errors
/// It does not answer within a second or two, or nobody is there, which is said at once.
pub(crate) fn ask_by_datagram(
    netns: &Netns,
    server: SocketAddr,
    bytes: usize,
) -> std::io::Result<SocketAddr> {
    netns.run(move || {
        let any: IpAddr = if server.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(1500)))?;
        socket.connect(server)?;
        socket.send(&vec![b'?'; bytes])?;
        let mut said = vec![0; 1 << 16];
        let bytes = socket.recv(&mut said)?;
        let said = String::from_utf8_lossy(&said[..bytes]).into_owned();
        said.trim_end().parse().map_err(|_| std::io::Error::other(said))
    })
}
