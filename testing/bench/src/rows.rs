//! The rows of the table of comparisons: what each is called and how its figures are to be read.

use crate::report::Row;

pub(crate) const VHOST: Row = Row {
    name: "vhost",
    title: "vhost-user to vhost-user, one worker, one flow",
    slide: "Pod to pod through one core",
    notes: "OVS-DPDK forwards by actions=NORMAL, as Millrace's pipeline does; \"in_port\" is its cross-connect that \
            looks at no address.",
};

pub(crate) const SWEEP: Row = Row {
    name: "sweep",
    title: "connections between two stations, vhost-user to vhost-user, one worker",
    slide: "The number of connections",
    notes: "OVS-DPDK forwards by actions=NORMAL, as Millrace's pipeline does; \"rules\" has one rule for each \
            connection. Neither Millrace's pipeline nor NORMAL looks at ports.",
};

pub(crate) const CONNECTIONS: Row = Row {
    name: "connections",
    title: "TCP connections to a service, behind a policy, vhost-user to vhost-user, one worker",
    slide: "New connections to a service",
    notes: "OVS-DPDK translates and tracks by ct(commit,nat) in one zone, and routes as Millrace does. Its tracker verifies \
            TCP checksums, Millrace's does not. A denied connection is its first packet.",
};

pub(crate) const STATIONS: Row = Row {
    name: "stations",
    title: "pairs of stations, vhost-user to vhost-user, one worker",
    slide: "The number of stations",
    notes: "Each pair of MAC addresses is a flow of its own to both switches; both have learned all stations.",
};

pub(crate) const ATTACK: Row = Row {
    name: "attack",
    title: "two pods while a third sends crafted headers at 1 Mbit/s",
    slide: "A hostile neighbour",
    notes: "The third port's access list in OVS-DPDK is the one that these headers are made for. Millrace has no access \
            lists yet: its port checks addresses (port security), and the same headers reach it.",
};

pub(crate) const LIMIT: Row = Row {
    name: "limit",
    title: "Millrace, its rings without a switch, and the bare copy",
    slide: "How near to the limit",
    notes: "\"no switch\": Millrace's own rings, whatever comes in by one port leaves by the other. \"memcpy\": the same \
            bytes from one place to another, and nothing else.",
};
