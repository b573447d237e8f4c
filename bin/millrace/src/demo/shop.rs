//! What do two nodes do together? Pings and TCP between their pods, a service with an endpoint on each, a policy that
//! denies one client, and the traces that say why.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::cluster::Cluster;
use super::pods::KernelPod;
use super::screen::{Steps, detail, outcome, wait_for};
use super::{PING_PATIENCE, PINGS, gbps, ledger, median_us};

/// Of the service, as the nodes' file has it.
const SERVICE: &str = "172.30.0.10";
const SERVICE_PORT: u16 = 80;
/// Where its endpoints listen.
const ENDPOINT_PORT: u16 = 8080;
/// Requests to the service.
const REQUESTS: usize = 20;
/// How long a client waits for a server that does not answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long one that answers may take.
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// Bytes of a message of the TCP stream.
const MESSAGE_BYTES: usize = 64 * 1024;
/// Source ports that are tried for one whose connection goes to the other node: half of all do.
const SOURCE_PORTS: std::ops::Range<u16> = 50_000..50_064;

/// Two nodes with their pods.
pub(super) struct Shop {
    cluster: Cluster,
    client: KernelPod,
    stranger: KernelPod,
    web: [KernelPod; 2],
    cart: KernelPod,
}

impl Shop {
    /// Starts the nodes and attaches the pods.
    ///
    /// # Errors
    /// What did not start.
    pub(super) fn open(folder: &Path, cpu: usize, steps: &mut Steps) -> Result<Shop> {
        steps
            .begin("two nodes start: a network namespace, a switch and an agent each, a bridge between them");
        let cluster = Cluster::start(folder, cpu)?;
        outcome("ready");
        for node in &cluster.nodes {
            let uplink = node.uplink()?.context("the uplink is gone")?;
            detail(&format!("{}  sends and takes tunnels by {uplink}", node.name()));
        }
        steps.begin("five pods are attached, three on node-1 and two on node-2");
        outcome("");
        let [one, two] = &cluster.nodes;
        let pod = |node, name, address: [u8; 4]| -> Result<KernelPod> {
            let pod = KernelPod::attach_to(node, ("shop", name))?;
            ensure!(
                pod.address.octets() == address,
                "{name} got {}, and policies expect {address:?}",
                pod.address
            );
            Ok(pod)
        };
        let client = pod(one, "client", [10, 128, 2, 2])?;
        let stranger = pod(one, "stranger", [10, 128, 2, 3])?;
        let web = [pod(one, "web-1", [10, 128, 2, 4])?, pod(two, "web-2", [10, 128, 4, 2])?];
        let cart = pod(two, "cart", [10, 128, 4, 3])?;
        Ok(Shop { cluster, client, stranger, web, cart })
    }

    /// Shows all that they do.
    ///
    /// # Errors
    /// The first thing that does not work.
    pub(super) fn show(&self, duration: Duration, steps: &mut Steps) -> Result<()> {
        self.cross(duration, steps)?;
        let server = |pod: &KernelPod| serve(pod, format!("hello from {}", pod.name));
        self.web.iter().try_for_each(server).context("a web server")?;
        self.ask_service(steps)?;
        self.deny(steps)?;
        self.explain(steps)?;
        println!();
        self.cluster.nodes.iter().try_for_each(ledger)
    }

    /// Detaches the pods.
    ///
    /// # Errors
    /// The first that cannot be detached.
    pub(super) fn close(self, steps: &mut Steps) -> Result<()> {
        steps.begin("the pods are detached");
        let [one, two] = &self.cluster.nodes;
        for (pod, node) in [
            (&self.client, one),
            (&self.stranger, one),
            (&self.web[0], one),
            (&self.web[1], two),
            (&self.cart, two),
        ] {
            pod.detach(node)?;
        }
        outcome("nothing left behind");
        Ok(())
    }

    fn cross(&self, duration: Duration, steps: &mut Steps) -> Result<()> {
        let (client, cart) = (&self.client, &self.cart);
        let ping = |count| lab::ping(&client.netns, cart.address, count, PING_PATIENCE).context("ping");
        steps.begin(&format!("ping client -> cart, from node to node in Geneve tunnels, {PINGS} times"));
        wait_for("cart to answer client", || Ok(ping(1)?.lost() == 0))?;
        let pings = ping(PINGS)?;
        outcome(&format!("{} lost, median {} us", pings.lost(), median_us(&pings)));
        steps.begin("one TCP stream client -> cart, from node to node");
        let gbps = gbps(&client.netns, &cart.netns, cart.address.into(), (MESSAGE_BYTES, duration))?;
        outcome(&format!("{gbps:.2} Gbit/s"));
        Ok(())
    }

    fn ask_service(&self, steps: &mut Steps) -> Result<()> {
        steps.begin(&format!("client asks the service shop/web, http://{SERVICE}, {REQUESTS} times"));
        wait_for("the service to answer", || Ok(get(&self.client).is_ok()))?;
        let said = (0..REQUESTS).map(|_| get(&self.client)).collect::<io::Result<Vec<_>>>();
        let said = said.with_context(|| format!("GET http://{SERVICE}"))?;
        outcome("");
        for (pod, node) in self.web.iter().zip(&self.cluster.nodes) {
            let greeting = format!("hello from {}", pod.name);
            let count = said.iter().filter(|said| **said == greeting).count();
            detail(&format!("{count:2} x \"{greeting}\", on {}", node.name()));
        }
        Ok(())
    }

    fn deny(&self, steps: &mut Steps) -> Result<()> {
        steps.begin("stranger asks it, too, and the policy shop/only-clients says no");
        let asked = get(&self.stranger);
        ensure!(asked.is_err(), "the policy let the stranger pass, who heard {asked:?}");
        outcome("no answer");
        for node in &self.cluster.nodes {
            let dropped = node.ledger()?.dropped("policy_denied");
            if dropped > 0 {
                detail(&format!("{} dropped {dropped} of its packets (policy_denied)", node.name()));
            }
        }
        Ok(())
    }

    fn explain(&self, steps: &mut Steps) -> Result<()> {
        let source_port = self.source_port_to_the_other_node()?;
        for (pod, question) in
            [(&self.client, "why is the client answered?"), (&self.stranger, "and why is the stranger not?")]
        {
            steps.begin(question);
            outcome("");
            detail(&format!("$ millrace trace {} --node node-2=...", words(pod, source_port)));
            for line in self.trace(pod, source_port, &[])?.lines() {
                detail(line);
            }
        }
        Ok(())
    }

    /// One from which both pods' connections go to the endpoint on the second node.
    fn source_port_to_the_other_node(&self) -> Result<u16> {
        for port in SOURCE_PORTS {
            let crosses = |pod| -> Result<bool> {
                let told: serde_json::Value =
                    serde_json::from_str(&self.trace(pod, port, &["-o", "json"])?)?;
                Ok(told["hops"].as_array().is_some_and(|hops| hops.len() > 1))
            };
            if crosses(&self.client)? && crosses(&self.stranger)? {
                return Ok(port);
            }
        }
        anyhow::bail!("no connection of {SOURCE_PORTS:?} goes to the endpoint on the other node")
    }

    fn trace(&self, pod: &KernelPod, source_port: u16, options: &[&str]) -> Result<String> {
        let words = words(pod, source_port);
        let other = self.cluster.other_node();
        let words = ["trace"].into_iter().chain(words.split(' ')).chain(["--node", &other]);
        self.cluster.nodes[0].tool(&words.chain(options.iter().copied()).collect::<Vec<_>>())
    }
}

fn words(pod: &KernelPod, source_port: u16) -> String {
    format!("--from shop/{} --to {SERVICE} --tcp {source_port},{SERVICE_PORT}", pod.name)
}

/// Answers HTTP requests in the pod with `text`, as long as this process lives.
fn serve(pod: &KernelPod, text: String) -> io::Result<()> {
    let listener = pod.netns.run(|| TcpListener::bind(("0.0.0.0", ENDPOINT_PORT)))?;
    std::thread::Builder::new().name(format!("server {}", pod.name)).spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that hangs up is its own affair.
            let _ = answer(stream, &text);
        }
    })?;
    Ok(())
}

fn answer(mut stream: TcpStream, text: &str) -> io::Result<()> {
    stream.set_read_timeout(Some(READ_PATIENCE))?;
    let lines = BufReader::new(stream.try_clone()?).lines();
    for line in lines {
        if line?.is_empty() {
            break;
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}", text.len())
}

/// What the service says to the pod.
fn get(pod: &KernelPod) -> io::Result<String> {
    let service: IpAddr = SERVICE.parse().map_err(io::Error::other)?;
    pod.netns.run(|| {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(service, SERVICE_PORT), PATIENCE)?;
        stream.set_read_timeout(Some(READ_PATIENCE))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {SERVICE}\r\n\r\n")?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        let body = said.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        body.ok_or_else(|| io::Error::other(format!("no HTTP answer: {said:?}")))
    })
}
