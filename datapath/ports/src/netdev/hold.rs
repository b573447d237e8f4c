//! What does the host do with datagrams that are the port's? Nothing, and without complaint.
//!
//! In packet mode the host receives them as well, and with XDP it receives fragments of them; to a UDP port that nobody has
//! bound it would answer each with "port unreachable". So the ports are bound here, by sockets that are never read: each
//! holds one datagram, and the kernel drops all others as the first thing it does with them. (A filter that drops them would
//! have the kernel sum them first.) A port that somebody else has is thereby found out before its datagrams are taken away.
//!
//! The sockets say that they take trains of datagrams (UDP_GRO, udp(7)). So the kernel neither parts a train to drop its
//! datagrams one by one, nor hands a packet socket one by one what a card received as a train.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::packet::set_option;
use super::{Interface, NetdevError};

/// The sockets that hold UDP ports until it is dropped.
#[derive(Debug)]
pub(super) struct Held(#[allow(dead_code, reason = "held to be closed")] Vec<OwnedFd>);

/// Holds `ports` of both families.
pub(super) fn hold(interface: &Interface, ports: &[u16]) -> Result<Held, NetdevError> {
    let mut sockets = Vec::new();
    for port in ports {
        for address in
            [SocketAddr::from((Ipv4Addr::UNSPECIFIED, *port)), (Ipv6Addr::UNSPECIFIED, *port).into()]
        {
            match bound(address) {
                Ok(socket) => sockets.push(socket),
                // A host without that family answers none of its datagrams.
                Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {}
                Err(Errno::ADDRINUSE) => return Err(NetdevError::UdpPortTaken(*port)),
                Err(errno) => return Err(NetdevError::at(&interface.netdev, "hold its UDP ports")(errno)),
            }
        }
    }
    Ok(Held(sockets))
}

fn bound(address: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // Two interfaces may take the same port.
    sockopt::set_socket_reuseport(&socket, true)?;
    // The kernel makes the smallest of it that it allows.
    sockopt::set_socket_recv_buffer_size(&socket, 0)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    // Kernels before 5.0 have no trains.
    let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, &1_i32);
    bind(&socket, &address)?;
    Ok(socket)
}
