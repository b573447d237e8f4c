//! A vhost-user program with just enough of a network stack to ping: it answers ARP requests for its address.

use std::net::IpAddr;
use std::time::Duration;

use guest::Guest;
use serde_json::json;
use wire::build::{self, Path};
use wire::{EtherType, arp, ethernet, icmpv4, ipv4};

use super::{Attached, Node, PATIENCE, Pod, wait_for};

const ECHO_ID: u16 = 7;

/// The program in a pod, attached to its socket.
pub(crate) struct Program {
    pub(crate) guest: Guest,
    pub(crate) attached: Attached,
}

impl Program {
    /// ADDs the pod to the network `pods` by a socket, and attaches to that.
    pub(crate) fn start(node: &Node, pod: &Pod) -> Program {
        let result =
            node.call("ADD", Some(pod), &config(node)).unwrap_or_else(|error| panic!("ADD: {error}"));
        let attached = Attached { result };
        let guest = Guest::builder().timeout(PATIENCE).connect(attached.interface("socketPath")).unwrap();
        Program { guest, attached }
    }

    /// Waits until the pod `other` answers an echo request.
    pub(crate) fn wait_for_ping(&mut self, other: &Attached) {
        let path = Path {
            source_mac: self.attached.interface("mac").parse().unwrap(),
            destination_mac: other.interface("mac").parse().unwrap(),
            source: self.attached.ipv4().into(),
            destination: other.ipv4().into(),
        };
        wait_for("an answer to the program", || {
            self.guest.send(&build::echo_request(path, ECHO_ID, 1, b"from a program")).unwrap();
            self.takes_reply(path)
        });
    }

    /// True once the echo reply has come; false if nothing comes any more.
    fn takes_reply(&mut self, path: Path) -> bool {
        while let Some((frame, _)) = self.guest.recv(Duration::from_millis(500)).unwrap() {
            let view = ethernet::View::new(&frame).unwrap();
            match view.ether_type() {
                EtherType::ARP => {
                    let asked = arp::View::new(view.payload()).unwrap();
                    if IpAddr::from(asked.target_ip()) == path.source {
                        let (to, by) = (asked.sender_mac(), asked.sender_ip());
                        self.guest
                            .send(&build::arp_reply(path.source_mac, asked.target_ip(), to, by))
                            .unwrap();
                    }
                }
                EtherType::IPV4 => {
                    let ip = ipv4::View::new(view.payload()).unwrap();
                    let reply = icmpv4::View::new(ip.payload());
                    if reply.is_ok_and(|icmp| icmp.kind() == 0 && icmp.echo_id() == ECHO_ID) {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }
}

/// The configuration that asks for a socket. In the same network as netdevs: what a pod gets is its own affair.
pub(crate) fn config(node: &Node) -> serde_json::Value {
    let mut config = node.config("pods");
    config["portKind"] = json!("vhost-user");
    config
}
