//! Does the tracker keep its promises? What several of its files answer together is asked here.

mod concurrent;
mod conversation;
mod limits;
mod model;
mod packets;
mod translated;

use std::net::IpAddr;
use std::sync::Arc;

use wire::IpProtocol;

use super::{
    Connections, Endpoint, Handle, Mark, Opening, Pickup, Quota, Refusal, Timeouts, Translation, Transport,
    Tuple, ZoneNo,
};
use crate::program::PortNo;
use crate::time::Now;

const PLENTY: Quota = Quota { zone: u32::MAX, port: u32::MAX };

fn tracker(total: u32) -> Arc<Connections> {
    Connections::new(total, Timeouts::default())
}

fn end(ip: [u8; 4], port: u16) -> Endpoint {
    Endpoint::new(IpAddr::from(ip), port)
}

/// From client `number` to one server.
fn udp(number: u32) -> Tuple {
    let [_, b, c, d] = number.to_be_bytes();
    Tuple {
        zone: ZoneNo(1),
        protocol: IpProtocol::UDP,
        source: end([10, b, c, d], 1000),
        destination: end([10, 255, 0, 1], 53),
    }
}

fn opening(tuple: &Tuple) -> Opening<'_> {
    Opening {
        tuple,
        transport: &Transport::Udp,
        port: PortNo(1),
        quota: PLENTY,
        translation: Translation::default(),
        mark: Mark::default(),
        pickup: Pickup::Refuse,
    }
}

fn open(connections: &Connections, tuple: &Tuple, ms: u64) -> Result<Handle, Refusal> {
    connections.open(&opening(tuple), Now { ms })
}
