//! A node of its own: switch and agent as real processes in a folder of theirs, driven through the executable alone.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "a test waits with a deadline")]
#![allow(clippy::print_stderr, reason = "a failed test tells what it saw")]

pub(crate) mod cluster;
pub(crate) mod program;
pub(crate) mod talk;

use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lab::Netns;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take before it has failed. Long: the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The networks of every test.
const NETWORKS: &str = "
networks:
  - name: pods
    subnets:
      - {subnet: 10.1.0.0/16, gateway: 10.1.0.1}
      - {subnet: 'fd00:1::/64', gateway: 'fd00:1::1'}
    routes: [{dst: 192.168.0.0/16}]
  - name: sockets
    portKind: vhost-user
    subnets:
      - {subnet: 10.2.0.0/16}
";

/// True if `test` can run here: it needs root for namespaces, and iproute2 to make them.
#[must_use]
pub(crate) fn possible(test: &str) -> bool {
    lab::require(test, lab::root().and_then(|()| lab::program("ip")).and_then(|()| lab::program("setpriv")))
}

/// True if `test` can run here as far as `program` goes, which it needs beside all that [`possible`] asks for.
#[must_use]
pub(crate) fn possible_with(test: &str, program: &str) -> bool {
    lab::require(test, lab::program(program))
}

/// A running node. Dropped, it is gone with all its processes.
pub(crate) struct Node {
    folder: TempDir,
    /// The namespace that its processes run in, and its name, if it is one of several.
    host: Option<(String, Netns)>,
    switch: Option<Child>,
    agent: Option<Child>,
}

impl Node {
    /// A node whose switch and agent run, ready for ADD.
    pub(crate) fn start() -> Node {
        let mut node = Node::new();
        node.start_switch();
        node.start_agent();
        node
    }

    /// A node with nothing running.
    pub(crate) fn new() -> Node {
        let folder = tempfile::Builder::new().prefix("mr").tempdir().unwrap();
        std::fs::write(folder.path().join("networks.yaml"), NETWORKS).unwrap();
        Node { folder, host: None, switch: None, agent: None }
    }

    /// A node of that name with nothing running, whose processes will be in `netns`.
    pub(crate) fn of_several(name: &str, netns: Netns) -> Node {
        let mut node = Node::new();
        node.host = Some((name.to_owned(), netns));
        node
    }

    /// The namespace of a node of several.
    pub(crate) fn host(&self) -> &Netns {
        &self.host.as_ref().unwrap().1
    }

    /// Where the sockets are.
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    /// A scratch path.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the switch and waits until it answers.
    pub(crate) fn start_switch(&mut self) {
        self.switch = Some(self.spawn("switch", &[]));
        wait_for("the switch to answer", || self.cli("get workers").status.success());
    }

    /// Starts the agent and waits until it is ready for ADD.
    pub(crate) fn start_agent(&mut self) {
        self.start_agent_unready();
        wait_for("the agent to be ready", || self.call("STATUS", None, &self.config("pods")).is_ok());
    }

    /// Starts the agent.
    pub(crate) fn start_agent_unready(&mut self) {
        let (state, networks) = (self.path("state"), self.path("networks.yaml"));
        let mut args = vec!["--state-dir", text(&state), "--networks", text(&networks)];
        if let Some((name, _)) = &self.host {
            args.extend(["--node", name]);
        }
        self.agent = Some(self.spawn("agent", &args));
    }

    /// Kills the switch with SIGKILL.
    pub(crate) fn kill_switch(&mut self) {
        kill(self.switch.take());
    }

    /// Kills the agent with SIGKILL.
    pub(crate) fn kill_agent(&mut self) {
        kill(self.agent.take());
    }

    /// Ends the switch with SIGTERM and returns its log.
    pub(crate) fn end_switch(&mut self) -> bool {
        end(self.switch.take())
    }

    /// Ends the agent with SIGTERM.
    pub(crate) fn end_agent(&mut self) -> bool {
        end(self.agent.take())
    }

    fn spawn(&self, process: &str, args: &[&str]) -> Child {
        let log =
            File::options().create(true).append(true).open(self.path(process).with_extension("log")).unwrap();
        // Killed with this test, however that ends.
        let mut command = match &self.host {
            None => Command::new("setpriv"),
            Some((_, netns)) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.path().display())).arg("setpriv");
                command
            }
        };
        command.args([
            "--pdeathsig",
            "KILL",
            "--",
            env!("CARGO_BIN_EXE_millrace"),
            "--log",
            "debug",
            process,
        ]);
        command.arg("--run-dir").arg(self.run_dir()).args(args);
        command.stdin(Stdio::null()).stderr(log).spawn().unwrap()
    }

    /// Runs a subcommand to its end, and its output.
    pub(crate) fn cli(&self, words: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millrace"));
        command.args(words.split_whitespace()).arg("--run-dir").arg(self.run_dir());
        command.output().unwrap()
    }

    /// `millrace get NOUN -o json`.
    pub(crate) fn get(&self, noun: &str) -> Value {
        let output = self.cli(&format!("get {noun} -o json"));
        assert!(output.status.success(), "get {noun}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// A network configuration as the runtime hands it to the plugin.
    pub(crate) fn config(&self, network: &str) -> Value {
        json!({
            "cniVersion": "1.1.0",
            "name": network,
            "type": "millrace-cni",
            "agentSocket": self.run_dir().join("cni.sock"),
        })
    }

    /// One call of the plugin, as the runtime makes it.
    pub(crate) fn call(&self, command: &str, pod: Option<&Pod>, config: &Value) -> Result<Value, Value> {
        answer(&self.plugin(command, pod, config).wait_with_output().unwrap())
    }

    /// Starts a call of the plugin.
    pub(crate) fn plugin(&self, command: &str, pod: Option<&Pod>, config: &Value) -> Child {
        let mut plugin = Command::new(env!("CARGO_BIN_EXE_millrace"));
        plugin.arg0("millrace-cni").env_clear().env("CNI_COMMAND", command).env("CNI_PATH", "/nonexistent");
        if let Some(pod) = pod {
            plugin.env("CNI_CONTAINERID", &pod.id).env("CNI_IFNAME", "eth0");
            if let Some((namespace, name)) = &pod.kubernetes {
                let args = format!("K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name}");
                plugin.env("CNI_ARGS", args);
            }
            if let Some(netns) = &pod.netns {
                plugin.env("CNI_NETNS", netns.path());
            }
        }
        let mut child =
            plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        child
    }

    /// ADDs the pod to `network`.
    pub(crate) fn add(&self, pod: &Pod, network: &str) -> Attached {
        let config = self.config(network);
        let result = self.call("ADD", Some(pod), &config).unwrap_or_else(|error| panic!("ADD: {error}"));
        Attached { result }
    }

    /// DELs the pod from `network`.
    pub(crate) fn del(&self, pod: &Pod, network: &str) {
        self.call("DEL", Some(pod), &self.config(network)).unwrap_or_else(|error| panic!("DEL: {error}"));
    }

    /// Waits until nothing moves and every frame that came in has an end: rx + copies == tx + drops.
    pub(crate) fn assert_ledger_balances(&self) {
        let mut last = Value::Null;
        let balanced = || {
            let total = self.get("ports")["total"].clone();
            let count = |field: &str| total[field].as_u64().unwrap();
            let quiet = total == last;
            last = total.clone();
            quiet && count("rx_frames") + count("copies") == count("tx_frames") + count("dropped_frames")
        };
        wait_for("the ledger to balance", balanced);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in ["switch", "agent"] {
                let log =
                    std::fs::read_to_string(self.path(process).with_extension("log")).unwrap_or_default();
                eprintln!("--- the {process} said:\n{log}");
            }
            eprintln!("--- ports:\n{}", String::from_utf8_lossy(&self.cli("get ports").stdout));
        }
        kill(self.agent.take());
        kill(self.switch.take());
    }
}

/// What an ADD answered.
pub(crate) struct Attached {
    pub(crate) result: Value,
}

impl Attached {
    /// The first IPv4 address.
    pub(crate) fn ipv4(&self) -> Ipv4Addr {
        let addresses = self.result["ips"].as_array().unwrap().iter();
        let texts = addresses.map(|ip| ip["address"].as_str().unwrap().split('/').next().unwrap());
        texts.filter_map(|ip| ip.parse().ok()).next().unwrap_or_else(|| panic!("{}", self.result))
    }

    /// A field of the interface.
    pub(crate) fn interface(&self, field: &str) -> &str {
        self.result["interfaces"][0][field].as_str().unwrap_or_else(|| panic!("{field}: {}", self.result))
    }
}

/// A pod's sandbox.
pub(crate) struct Pod {
    pub(crate) id: String,
    pub(crate) netns: Option<Netns>,
    /// Its namespace and name, as the kubelet says them.
    pub(crate) kubernetes: Option<(String, String)>,
}

impl Pod {
    pub(crate) fn new(name: &str) -> Pod {
        let id = format!("{name}-{:08x}", std::process::id());
        Pod { id, netns: Some(Netns::new().unwrap()), kubernetes: None }
    }

    /// Pod `name` of a namespace.
    pub(crate) fn of_namespace(namespace: &str, name: &str) -> Pod {
        Pod { kubernetes: Some((namespace.to_owned(), name.to_owned())), ..Pod::new(name) }
    }

    pub(crate) fn netns(&self) -> &Netns {
        self.netns.as_ref().unwrap()
    }
}

fn answer(output: &Output) -> Result<Value, Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    let value = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    if output.status.success() { Ok(value) } else { Err(value) }
}

/// Waits until `what` is so.
pub(crate) fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `from` gets an answer from `to`.
pub(crate) fn wait_for_ping(from: &Pod, to: Ipv4Addr) {
    wait_for(&format!("{to} to answer {}", from.id), || {
        lab::ping(from.netns(), to, 1, Duration::from_millis(500)).unwrap().lost() == 0
    });
}

fn kill(child: Option<Child>) {
    if let Some(mut child) = child {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn end(child: Option<Child>) -> bool {
    let mut child = child.expect("it runs");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut ended = None;
    wait_for("the process to end", || {
        ended = child.try_wait().unwrap();
        ended.is_some()
    });
    ended.is_some_and(|status| status.success())
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
