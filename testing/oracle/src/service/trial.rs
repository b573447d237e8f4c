//! Does each connection go where it may, stay there, and get its answers? The same on all clusters.

use std::collections::BTreeMap;

use vswitch::program::{Affinity, EndpointSpec, FrontendSpec, ServiceNo};
use wire::build::Path;

use super::cluster::{Cluster, GATEWAY, gateway_address};
use super::naive::{self, Answer, Question};
use super::packet::{Packet, Seen};
use super::{Pod, Services, Step};

/// The first port that clients begin from.
const FIRST_CLIENT_PORT: u16 = 20_000;

/// Services, clusters that are told of them, and the connections that were made.
#[derive(Debug)]
pub struct Trial {
    services: Services,
    version: u64,
    clusters: Vec<Cluster>,
    connections: Vec<Connection>,
    /// Where the last connection of a client went that a service keeps at one endpoint, and when, in seconds.
    kept: BTreeMap<(ServiceNo, Pod), (EndpointSpec, u32)>,
    now_s: u32,
    next_client_port: u16,
}

/// One that was made.
#[derive(Debug, Clone)]
struct Connection {
    question: Question,
    client_port: u16,
    endpoint: EndpointSpec,
    /// Packets of each end so far.
    round: u32,
}

/// Where a packet went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Nowhere,
    Refused,
    At(EndpointSpec),
}

impl Default for Trial {
    fn default() -> Self {
        let clusters = vec![
            Cluster::new(2, |pod| u16::from(pod.0 % 2)),
            // The same pods elsewhere.
            Cluster::new(3, |pod| u16::from(pod.0 / 2)),
            Cluster::new(1, |_| 0),
        ];
        let mut trial = Self {
            services: Services::new(),
            version: 0,
            clusters,
            connections: Vec::new(),
            kept: BTreeMap::new(),
            now_s: 0,
            next_client_port: FIRST_CLIENT_PORT,
        };
        trial.program();
        trial
    }
}

impl Trial {
    /// Takes a step; after a change, looks after all connections.
    pub fn apply(&mut self, step: &Step) {
        match step {
            Step::Put(service) => {
                self.services.insert(service.number, service.clone());
                self.change(service.number);
            }
            Step::Delete(number) => {
                self.services.remove(number);
                self.change(*number);
            }
            Step::Connect(question) => drop(self.connect(question)),
            Step::Pass(seconds) => self.pass(*seconds),
        }
    }

    /// Clients are kept at endpoints that still serve, of services that still keep them.
    fn change(&mut self, number: ServiceNo) {
        let service = self.services.get(&number).filter(|service| service.affinity != Affinity::None);
        let is_kept =
            |endpoint: &EndpointSpec| service.is_some_and(|service| service.endpoints.contains(endpoint));
        self.kept.retain(|(service, _), (endpoint, _)| *service != number || is_kept(endpoint));
        self.program();
        self.go_on();
    }

    /// What becomes of connections that nobody uses for long is not asked here.
    fn pass(&mut self, seconds: u32) {
        self.connections.clear();
        self.now_s += seconds;
        self.clusters.iter_mut().for_each(|cluster| cluster.pass(u64::from(seconds) * 1000));
    }

    fn program(&mut self) {
        self.version += 1;
        for cluster in &mut self.clusters {
            cluster.program(self.version, &self.services);
        }
    }

    /// Makes a connection. The endpoint that it went to, if it went to one.
    pub fn connect(&mut self, question: &Question) -> Option<EndpointSpec> {
        self.next_client_port += 1;
        let client_port = self.next_client_port;
        let allowed = naive::ask(&self.services, question);
        let endpoint = self.ask(question, (client_port, 0), &allowed)?;
        self.check_kept(question, endpoint);
        self.connections.push(Connection { question: *question, client_port, endpoint, round: 1 });
        Some(endpoint)
    }

    /// A connection of a client goes where its last one went, if that was no longer ago than the service says.
    fn check_kept(&mut self, question: &Question, endpoint: EndpointSpec) {
        let service = self.services.values().find(|service| service.frontends.contains(&question.to));
        let Some(service) = service else { return };
        let Affinity::ClientIp { timeout_s } = service.affinity else { return };
        let before = self.kept.insert((service.number, question.client), (endpoint, self.now_s));
        if let Some((kept, used_s)) = before.filter(|(_, used_s)| self.now_s - used_s < timeout_s) {
            assert_eq!(kept, endpoint, "{question:?} goes where one went at {used_s} s\n{}", self.show());
        }
    }

    /// Sends once more on each connection, both ways, twice: the second time it is out of the caches.
    pub fn go_on(&mut self) {
        for mut connection in std::mem::take(&mut self.connections) {
            let Connection { question, client_port, endpoint, round } = connection;
            let allowed = naive::ask_again(&self.services, &question, endpoint);
            if allowed == Answer::Untouched && Pod::at(question.to.address).is_none() {
                continue;
            }
            let Some(now_at) = self.ask(&question, (client_port, round), &allowed) else { continue };
            let again = self.ask(&question, (client_port, round), &Answer::OneOf(vec![now_at]));
            assert_eq!(again, Some(now_at));
            connection.endpoint = now_at;
            connection.round += 1;
            self.connections.push(connection);
        }
    }

    /// Sends a packet by each cluster: it goes where it may, everywhere to the same, and its answer comes back.
    fn ask(
        &mut self,
        question: &Question,
        (client_port, round): (u16, u32),
        allowed: &Answer,
    ) -> Option<EndpointSpec> {
        let packet = Packet { protocol: question.to.protocol, round, is_answer: false };
        let mut fates = Vec::new();
        for at in 0..self.clusters.len() {
            let cluster = &mut self.clusters[at];
            let (fate, seen) = send(cluster, question, client_port, packet);
            let is_right = match (fate, allowed) {
                (Fate::At(endpoint), Answer::OneOf(all)) => all.contains(&endpoint),
                (Fate::At(endpoint), Answer::Untouched) => {
                    (endpoint.address, endpoint.port) == (question.to.address, question.to.port)
                }
                (Fate::Refused, Answer::Refused) => true,
                (Fate::Nowhere, Answer::Untouched) => Pod::at(question.to.address).is_none(),
                _ => false,
            };
            assert!(
                is_right,
                "{question:?} from port {client_port}, {packet:?}, cluster {at}: {fate:?}, which is not {allowed:?}\n{}",
                self.show()
            );
            if let Some((from, to)) = seen {
                let cluster = &mut self.clusters[at];
                let back = answer(cluster, (from, to), Packet { is_answer: true, ..packet });
                let client = FrontendSpec {
                    address: question.client.address(question.to.address.is_ipv4()),
                    port: client_port,
                    ..question.to
                };
                let expected = [(question.client, Seen::Packet { from: question.to, to: client })];
                assert_eq!(back, expected, "the answer to {question:?}, cluster {at}\n{}", self.show());
            }
            fates.push(fate);
        }
        assert!(
            fates.iter().all(|fate| *fate == fates[0]),
            "clusters differ about {question:?}: {fates:?}\n{}",
            self.show()
        );
        match fates[0] {
            Fate::At(endpoint) => Some(endpoint),
            _ => None,
        }
    }

    fn show(&self) -> String {
        format!("{:#?}", self.services)
    }
}

/// Sends a client's packet. What became of it, and whom the endpoint sees: the sender, and itself.
fn send(
    cluster: &mut Cluster,
    question: &Question,
    client_port: u16,
    packet: Packet,
) -> (Fate, Option<(FrontendSpec, FrontendSpec)>) {
    let Question { client, to } = *question;
    let is_v4 = to.address.is_ipv4();
    let source = client.address(is_v4);
    let path =
        Path { source_mac: client.station(), destination_mac: GATEWAY, source, destination: to.address };
    let arrived = cluster.send(client, packet.frame(path, (client_port, to.port)));
    let [(pod, frame)] = &arrived[..] else {
        assert!(arrived.is_empty(), "one packet became several: {arrived:?}");
        return (Fate::Nowhere, None);
    };
    match Seen::read(frame) {
        Seen::Packet { from, to: endpoint } => {
            assert_eq!(Pod::at(endpoint.address), Some(*pod), "it has the address of who got it");
            // From the client; but nobody would answer itself.
            let sender = if *pod == client { gateway_address(is_v4) } else { source };
            assert_eq!(from.address, sender, "{question:?}: who sends it");
            assert!(from.port == client_port || *pod == client, "{question:?}: the client's port");
            (
                Fate::At(EndpointSpec { address: endpoint.address, port: endpoint.port }),
                Some((from, endpoint)),
            )
        }
        Seen::Refusal if *pod == client => (Fate::Refused, None),
        _ => (Fate::Nowhere, None),
    }
}

/// Sends an endpoint's answer to whom it saw. Who gets it, and what they read.
fn answer(
    cluster: &mut Cluster,
    (client, own): (FrontendSpec, FrontendSpec),
    packet: Packet,
) -> Vec<(Pod, Seen)> {
    let pod = Pod::at(own.address).expect("an endpoint that is a pod");
    let path = Path {
        source_mac: pod.station(),
        destination_mac: GATEWAY,
        source: own.address,
        destination: client.address,
    };
    let arrived = cluster.send(pod, packet.frame(path, (own.port, client.port)));
    arrived.into_iter().map(|(pod, frame)| (pod, Seen::read(&frame))).collect()
}
