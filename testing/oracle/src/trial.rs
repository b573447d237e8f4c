//! Do all answers agree, after each step, about everybody?

use std::net::IpAddr;

use model::Protocol;
use policy::{Compiler, Span};
use vswitch::program::Scope;

use crate::bed::{Bed, NETWORK};
use crate::naive;
use crate::told::Told;
use crate::world::{Answer, NODE, Question, Step, World};

/// The ports that are asked about: those of the suite's servers.
const PORTS: [u16; 2] = [80, 81];
/// Somebody who is no pod, in blocks that cases name and out of them.
const OUTSIDE: [&str; 3] = ["192.0.2.7", "10.2.0.200", "fd00::2:77"];

/// A world, what was compiled of it, for all pods and for one node, and a switch that was told.
pub struct Trial {
    world: World,
    compiler: Compiler,
    told: Told,
    /// What one node's agent compiles, and tells its own switch.
    node: (Compiler, Told),
    bed: Bed,
}

impl Trial {
    /// Begins with a world.
    pub fn new(world: &World) -> Self {
        let compiler = Compiler::new(Scope::Network(NETWORK), Span::Everywhere);
        let node = Compiler::new(Scope::Network(NETWORK), Span::Node(NODE.into()));
        let (node, told) = ((node, Told::default()), Told::default());
        let mut trial = Self { world: World::default(), compiler, told, node, bed: Bed::new() };
        trial.apply(&world.steps());
        trial
    }

    /// The world as it is.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Changes the world, and tells the switch what the compiler says. What was told is held against all there is, and
    /// against what a compiler says that knows no past.
    pub fn apply(&mut self, steps: &[Step]) {
        steps.iter().for_each(|step| self.world.apply(step));
        let changed = self.compiler.apply(steps.iter().map(Step::change));
        self.told.follow(&self.world, &self.compiler, &changed);
        assert_eq!(
            self.told,
            Told::of(&self.world, &self.compiler),
            "what was told is not all\n{}",
            self.show()
        );
        let (node, told) = &mut self.node;
        let changed = node.apply(steps.iter().map(Step::change));
        told.follow(&self.world, node, &changed);
        let is_all = *told == Told::of(&self.world, node);
        assert!(is_all, "what a node was told is not all\n{}\n{:#?}", self.show(), self.node.1);
        let mut fresh = Compiler::new(Scope::Network(NETWORK), Span::Everywhere);
        fresh.apply(self.world.steps().iter().map(Step::change));
        let fresh = Told::of(&self.world, &fresh).meaning();
        assert_eq!(
            format!("{:?}", self.told.meaning()),
            format!("{fresh:?}"),
            "the past counts\n{}",
            self.show()
        );
        self.bed.program(&self.world, &self.told);
    }

    /// Asks about all pairs of pods, ports and protocols, and about somebody outside.
    pub fn ask_all(&mut self) -> usize {
        let questions = questions(&self.world);
        questions.iter().for_each(|question| drop(self.ask(question)));
        questions.len()
    }

    /// Asks everybody; they agree.
    pub fn ask(&mut self, question: &Question) -> Answer {
        let naive = naive::ask(&self.world, question);
        let compiled = self.told.ask(&self.world, question);
        let switch = self.bed.connects(&self.world, question);
        assert!(
            naive == compiled && switch.is_none_or(|arrived| arrived == naive.allowed),
            "{question}\n naive: {naive:?}\n compiled: {compiled:?}\n the switch: arrived {switch:?}\n{}",
            self.show()
        );
        self.ask_node(question);
        if !naive.allowed && question.protocol == Some(Protocol::Udp) {
            self.ask_turned(question);
        }
        naive
    }

    /// For what is denied by datagram: whether the packet arrives when it comes again, whether the one does that the server begins
    /// the other way round, and whether the client's does then.
    pub fn turns(&mut self, question: &Question) -> Option<[bool; 3]> {
        self.bed.turns(&self.world, question)
    }

    /// What is denied by datagram stays denied, from the caches too, until the server begins the connection of which it is an answer.
    fn ask_turned(&mut self, question: &Question) {
        let Some([again, turned, answer]) = self.turns(question) else { return };
        let port = self.bed.last_client_port();
        let other = Question { client: question.server, server: question.client, port, ..*question };
        let allowed = naive::ask(&self.world, &other).allowed;
        assert_eq!(
            [again, turned, answer],
            [false, allowed, allowed],
            "{question}, then {other}\n{}",
            self.show()
        );
    }

    /// What the node knows of its own pods' policies is what is known of all.
    fn ask_node(&self, question: &Question) {
        let (world, node) = (&self.world, &self.node.1);
        let is_here =
            |address: IpAddr| world.pod_at(address).is_some_and(|pod| pod.node_name.as_deref() == Some(NODE));
        if is_here(question.client) {
            let answers = (node.ask_client(world, question), self.told.ask_client(world, question));
            assert_eq!(answers.0, answers.1, "{question}: egress at the node, and of all\n{}", self.show());
        }
        if is_here(question.server) {
            let answers = (node.ask_server(world, question), self.told.ask_server(world, question));
            assert_eq!(answers.0, answers.1, "{question}: ingress at the node, and of all\n{}", self.show());
        }
    }

    /// Sends once more on each connection that was made: it goes on exactly while policies allow it.
    pub fn check_connections(&mut self) {
        for (question, client_port) in self.bed.connections() {
            let naive = naive::ask(&self.world, &question);
            let Some(arrived) = self.bed.goes_on(&self.world, &question, client_port) else { continue };
            assert_eq!(arrived, naive.allowed, "{question} goes on: {naive:?}\n{}", self.show());
        }
    }

    fn show(&self) -> String {
        let world = serde_yaml_ng::to_string(&self.world);
        format!("{}\n{:#?}", world.unwrap_or_else(|error| error.to_string()), self.told)
    }
}

/// All pairs of addresses of one family, but for a pod's own, by all ports and protocols.
pub(crate) fn questions(world: &World) -> Vec<Question> {
    let outside = OUTSIDE.iter().map(|text| text.parse().expect("an address"));
    let pods = world.pods.iter().flat_map(|pod| &pod.addresses).copied();
    let all: Vec<IpAddr> = pods.chain(outside).collect();
    let is_pod = |address: IpAddr| world.pod_at(address).is_some();
    let is_asked = |client: IpAddr, server: IpAddr| {
        client.is_ipv4() == server.is_ipv4()
            && client != server
            && (is_pod(client) || is_pod(server))
            && world.pod_at(client).map(|it| (&it.namespace, &it.name))
                != world.pod_at(server).map(|it| (&it.namespace, &it.name))
    };
    let pairs = all.iter().flat_map(|client| all.iter().map(move |server| (*client, *server)));
    let kinds = || {
        let ported = Protocol::ALL.into_iter().flat_map(|it| PORTS.map(|port| (Some(it), port)));
        ported.chain([(None, 0)])
    };
    let ask = |(client, server): (IpAddr, IpAddr)| {
        kinds().map(move |(protocol, port)| Question { client, server, protocol, port })
    };
    pairs.filter(|(client, server)| is_asked(*client, *server)).flat_map(ask).collect()
}
