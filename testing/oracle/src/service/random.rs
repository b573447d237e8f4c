//! What could services be, and who connects to them? Few addresses and ports, so that they meet.

use std::net::IpAddr;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use vswitch::program::{Affinity, EndpointSpec, FrontendSpec, ServiceNo, ServiceSpec};
use wire::IpProtocol;

use super::Pod;
use super::cluster::SCOPE;
use super::naive::Question;

/// Services, from 1 on. Those of even numbers are of IPv4.
const SERVICES: u32 = 4;
/// Of services that keep their clients.
const SHORT: Affinity = Affinity::ClientIp { timeout_s: 60 };
const LONG: Affinity = Affinity::ClientIp { timeout_s: 10_800 };
const PROTOCOLS: [IpProtocol; 3] = [IpProtocol::TCP, IpProtocol::UDP, IpProtocol::SCTP];

/// Anything that may happen.
#[derive(Debug, Clone)]
pub enum Step {
    /// A service is written.
    Put(ServiceSpec),
    /// A service goes.
    Delete(ServiceNo),
    /// A client connects.
    Connect(Question),
    /// So many seconds pass, and the connections that were made are over.
    Pass(u32),
}

/// A step of any kind.
pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..=SERVICES).prop_flat_map(service).prop_map(Step::Put),
        1 => (1..=SERVICES).prop_map(|number| Step::Delete(ServiceNo(number))),
        12 => question().prop_map(Step::Connect),
        1 => select(vec![1, 59, 60, 20_000]).prop_map(Step::Pass),
    ]
}

/// All frontends that service `number` may have. It shares an address with others, and has one of its own; ports are its own.
pub fn frontends(number: u32) -> Vec<FrontendSpec> {
    let (is_v4, ports) = (number.is_multiple_of(2), [80 + number as u16, 180 + number as u16]);
    let addresses = [0, number as u8].map(|host| vip(is_v4, host));
    let all = addresses.into_iter().flat_map(|address| PROTOCOLS.map(|protocol| (address, protocol)));
    let all = all.flat_map(|(address, protocol)| ports.map(|port| FrontendSpec { address, protocol, port }));
    all.collect()
}

/// All endpoints that service `number` may have.
pub fn endpoints(number: u32) -> Vec<EndpointSpec> {
    let is_v4 = number.is_multiple_of(2);
    let all = Pod::all().flat_map(|pod| [8080, 8081].map(|port| (pod.address(is_v4), port)));
    all.map(|(address, port)| EndpointSpec { address, port }).collect()
}

fn vip(is_v4: bool, host: u8) -> IpAddr {
    if is_v4 {
        [172, 30, 0, 10 + host].into()
    } else {
        [0xfd30, 0, 0, 0, 0, 0, 0, 10 + u16::from(host)].into()
    }
}

fn service(number: u32) -> impl Strategy<Value = ServiceSpec> {
    let (frontends, endpoints) = (frontends(number), endpoints(number));
    let most = frontends.len();
    // Some are named twice.
    let endpoints = prop_oneof![1 => Just(Vec::new()), 9 => vec(select(endpoints), 1..7)];
    let affinity = select(vec![Affinity::None, SHORT, LONG]);
    (subsequence(frontends, 1..=most), endpoints, affinity).prop_map(
        move |(frontends, endpoints, affinity)| ServiceSpec {
            number: ServiceNo(number),
            name: format!("shop/service-{number}"),
            scope: SCOPE,
            frontends,
            endpoints,
            affinity,
        },
    )
}

/// A connection to what could be a service's, or to a pod itself.
fn question() -> impl Strategy<Value = Question> {
    let service = (1..=SERVICES).prop_flat_map(|number| select(frontends(number)));
    let direct =
        (any::<bool>(), 0..Pod::COUNT, select(PROTOCOLS.to_vec()), select(vec![8080, 8081, 80])).prop_map(
            |(is_v4, pod, protocol, port)| FrontendSpec { address: Pod(pod).address(is_v4), protocol, port },
        );
    (0..Pod::COUNT, prop_oneof![6 => service, 1 => direct])
        .prop_map(|(client, to)| Question { client: Pod(client), to })
        .prop_filter("nobody connects to itself but by a service", |question| {
            Pod::at(question.to.address) != Some(question.client)
        })
}
