//! A node in the guest: switch and agent as real processes in a folder of theirs, and the calls of a container runtime.

use std::io::Write;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{PATIENCE, names, program, wait_for};
use lab::{Netns, Process, ping};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The modules that pods of VDUSE need.
pub const MODULES: &str = "tun vduse virtio_vdpa virtio_net vhost_vdpa";

const NETWORKS: &str = "
networks:
  - name: pods
    mtu: 1400
    subnets: [{subnet: 10.1.0.0/24, gateway: 10.1.0.1}, {subnet: 'fd00:1::/64'}]
    routes: [{dst: 192.168.0.0/16}]
";

/// A running node. Dropped, its processes are gone.
#[derive(Debug)]
pub struct Node {
    folder: TempDir,
    /// The switch's process.
    pub switch: Process,
    /// The agent's process.
    pub agent: Process,
}

impl Node {
    /// A node whose switch and agent run, ready for ADD.
    pub fn start() -> Node {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("networks.yaml"), NETWORKS).unwrap();
        let (switch, agent) = (start_switch(folder.path()), start_agent(folder.path()));
        let node = Node { folder, switch, agent };
        node.await_ready();
        node
    }

    /// Starts the switch anew; the one before is killed with SIGKILL.
    pub fn start_switch(&mut self) {
        self.switch.kill();
        self.switch = start_switch(self.folder.path());
    }

    /// Starts the agent anew; the one before is killed with SIGKILL.
    pub fn start_agent(&mut self) {
        self.agent.kill();
        self.agent = start_agent(self.folder.path());
        self.await_ready();
    }

    /// Waits until ADD can be served.
    #[track_caller]
    pub fn await_ready(&self) {
        wait_for("the node to be ready", || self.call("STATUS", None, "auto").ok());
    }

    /// One call of the plugin, as the runtime makes it, for an interface of `kind`.
    ///
    /// # Errors
    /// What the plugin answered.
    pub fn call(&self, command: &str, pod: Option<&Pod>, kind: &str) -> Result<Value, Value> {
        self.call_with(command, pod, &self.config(kind))
    }

    /// The network configuration for an interface of `kind`.
    pub fn config(&self, kind: &str) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "millrace-cni", "portKind": kind,
            "agentSocket": self.path("cni.sock"),
        })
    }

    /// One call of the plugin, with a configuration.
    ///
    /// # Errors
    /// What the plugin answered.
    pub fn call_with(&self, command: &str, pod: Option<&Pod>, config: &Value) -> Result<Value, Value> {
        let output = self.plugin(command, pod, config).wait_with_output().unwrap();
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() { Ok(answer) } else { Err(answer) }
    }

    /// Starts a call of the plugin.
    pub fn plugin(&self, command: &str, pod: Option<&Pod>, config: &Value) -> Child {
        let mut plugin = Command::new(program("millrace-cni"));
        plugin.env_clear().env("CNI_COMMAND", command).env("CNI_PATH", "/nonexistent");
        if let Some(pod) = pod {
            plugin.env("CNI_CONTAINERID", &pod.id).env("CNI_IFNAME", "eth0").env("CNI_NETNS", &pod.path);
        }
        let mut child = plugin.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        child
    }

    /// A pod with an interface of `kind`.
    #[track_caller]
    pub fn add(&self, name: &str, kind: &str) -> Pod {
        let mut pod = Pod::new(name);
        self.add_to(&mut pod, kind);
        pod
    }

    /// Gives a pod an interface of `kind`.
    #[track_caller]
    pub fn add_to(&self, pod: &mut Pod, kind: &str) {
        pod.result = self.call("ADD", Some(pod), kind).unwrap_or_else(|error| self.give_up("ADD", &error));
    }

    /// Takes its interface from the pod.
    #[track_caller]
    pub fn del(&self, pod: &Pod) {
        self.call("DEL", Some(pod), "auto").unwrap_or_else(|error| self.give_up("DEL", &error));
    }

    /// What `millrace get` tells.
    pub fn get(&self, noun: &str) -> Value {
        let mut command = Command::new(program("millrace"));
        command.args(["get", noun, "-o", "json", "--run-dir"]).arg(self.folder.path());
        serde_json::from_slice(&command.output().unwrap().stdout).unwrap()
    }

    /// The attachments.
    pub fn attachments(&self) -> Vec<Value> {
        self.get("attachments")["attachments"].as_array().unwrap().clone()
    }

    /// The attachment of a pod.
    pub fn attachment(&self, pod: &Pod) -> Value {
        let all = self.attachments();
        all.into_iter().find(|found| found["container_id"] == pod.id.as_str()).unwrap()
    }

    /// Stops the switch as a debugger does: it lives, and answers nothing.
    pub fn stop_switch(&self) {
        let folder = text(self.folder.path()).as_bytes();
        let is_switch = |words: &[u8]| {
            let mut words = words.split(|byte| *byte == 0);
            words.any(|word| word == b"switch") && words.any(|word| word == folder)
        };
        let serves =
            |pid: &String| std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| is_switch(&words));
        let pid = names("/proc").into_iter().find(serves).and_then(|pid| Pid::from_raw(pid.parse().ok()?));
        kill_process(pid.expect("it runs"), Signal::STOP).unwrap();
    }

    /// A path in the node's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn give_up<T>(&self, what: &str, error: &Value) -> T {
        panic!(
            "{what}: {error}\n--- the switch said:\n{}--- the agent said:\n{}",
            self.switch.said(),
            self.agent.said()
        );
    }
}

fn start_switch(folder: &Path) -> Process {
    let args = ["--log", "debug", "switch", "--run-dir", text(folder)];
    Process::start(program("millrace"), args, &folder.join("switch.log")).unwrap()
}

fn start_agent(folder: &Path) -> Process {
    let (state, networks) = (folder.join("state"), folder.join("networks.yaml"));
    let args = ["--log", "debug", "agent", "--run-dir", text(folder), "--state-dir", text(&state)];
    let args = args.into_iter().chain(["--networks", text(&networks)]);
    Process::start(program("millrace"), args, &folder.join("agent.log")).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A pod's sandbox, and what ADD answered.
#[derive(Debug)]
pub struct Pod {
    /// The container's id.
    pub id: String,
    /// Its network namespace; none: it died.
    pub netns: Option<Netns>,
    /// What ADD answered.
    pub result: Value,
    path: PathBuf,
}

impl Pod {
    /// A pod without an interface.
    pub fn new(name: &str) -> Pod {
        let netns = Netns::new().unwrap();
        Pod { id: name.to_owned(), path: netns.path(), netns: Some(netns), result: Value::Null }
    }

    /// Its network namespace.
    pub fn netns(&self) -> &Netns {
        self.netns.as_ref().unwrap()
    }

    /// Its IPv4 address.
    pub fn ipv4(&self) -> Ipv4Addr {
        let texts = self.result["ips"].as_array().unwrap().iter();
        let mut addresses =
            texts.filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse::<Ipv4Addr>().ok());
        addresses.next().unwrap_or_else(|| panic!("{}", self.result))
    }

    /// Its interface, as `ip` tells it.
    pub fn link(&self) -> Value {
        let told = self.netns().ip("-json -details address show dev eth0").unwrap();
        serde_json::from_str::<Value>(&told).unwrap()[0].clone()
    }
}

/// Pings `to`, and none of the echoes gets lost.
#[track_caller]
pub fn assert_reaches(from: &Pod, to: &Pod) {
    wait_for("a first echo", || {
        (ping(from.netns(), to.ipv4(), 1, PATIENCE / 10).unwrap().lost() == 0).then_some(())
    });
    let report = ping(from.netns(), to.ipv4(), 5, PATIENCE).unwrap();
    assert_eq!(report.lost(), 0, "{} to {}: {report:?}", from.id, to.id);
}
