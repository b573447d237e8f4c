//! One node on this machine: a switch, an agent, and the calls that a container runtime would make.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// How long both processes may take to start.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node is to be.
pub(super) struct Setup<'a> {
    /// The network that its pods are in.
    pub(super) network: &'static str,
    /// Its networks file.
    pub(super) file: &'a str,
    /// The CPU of the switch's worker.
    pub(super) cpu: usize,
    /// Its name and network namespace, if it is one of several.
    pub(super) host: Option<(&'static str, PathBuf)>,
}

/// A switch and an agent in a folder of their own. Dropping it ends both.
pub(super) struct Node {
    folder: PathBuf,
    program: PathBuf,
    network: &'static str,
    host: Option<(&'static str, PathBuf)>,
    children: Vec<Child>,
}

impl Node {
    /// Starts both processes and waits until the agent can serve.
    ///
    /// # Errors
    /// What did not start, with what it said.
    pub(super) fn start(folder: PathBuf, setup: &Setup<'_>) -> Result<Node> {
        std::fs::create_dir(&folder).context("a node's folder")?;
        let program = std::env::current_exe().context("the path of this program")?;
        std::fs::write(folder.join("networks.yaml"), setup.file)?;
        // The program is the CNI executable too, under that name.
        std::os::unix::fs::symlink(&program, folder.join("millrace-cni"))?;
        let (network, host) = (setup.network, setup.host.clone());
        let mut node = Node { folder, program, network, host, children: Vec::new() };
        node.spawn("switch", &["--cpus", &setup.cpu.to_string()])?;
        let (networks, state) = (node.path("networks.yaml"), node.path("state"));
        let (networks, state) = (networks.to_string_lossy(), state.to_string_lossy());
        let mut arguments = vec!["--networks", &networks, "--state-dir", &state];
        if let Some((name, _)) = setup.host {
            arguments.extend(["--node", name]);
        }
        node.spawn("agent", &arguments)?;
        node.wait_ready()?;
        Ok(node)
    }

    /// The folder that everything lives in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its name, if it is one of several.
    pub(super) fn own_name(&self) -> Option<&str> {
        self.host.as_ref().map(|(name, _)| *name)
    }

    /// What it is called.
    pub(super) fn name(&self) -> &str {
        self.own_name().unwrap_or("this node")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn spawn(&mut self, role: &str, arguments: &[&str]) -> Result<()> {
        let log = std::fs::File::create(self.path(&format!("{role}.log")))?;
        let mut command = match &self.host {
            None => Command::new(&self.program),
            // It becomes the program: whose parent is this thread, which lives as long as the demo.
            Some((_, netns)) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", netns.display())).arg("--").arg(&self.program);
                command
            }
        };
        command.arg(role).arg("--run-dir").arg(&self.folder).arg("--exit-with-parent").args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.children.push(command.spawn().with_context(|| format!("starting millrace {role}"))?);
        Ok(())
    }

    fn wait_ready(&mut self) -> Result<()> {
        #[allow(clippy::disallowed_methods, reason = "a deadline for processes that do not start")]
        let start = Instant::now();
        loop {
            let error = match self.cni("STATUS", &[], &self.network_config("tap")) {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            let died = self.children.iter_mut().any(|child| !matches!(child.try_wait(), Ok(None)));
            if died || start.elapsed() > PATIENCE {
                let logs = ["switch", "agent"].map(|role| self.log(role));
                bail!("switch and agent did not become ready: {error:#}\n{}", logs.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn log(&self, role: &str) -> String {
        let text = std::fs::read_to_string(self.path(&format!("{role}.log"))).unwrap_or_default();
        format!("millrace {role} said:\n{text}")
    }

    /// The network configuration that a runtime would hand over, for a pod that wants a port of `kind`.
    pub(super) fn network_config(&self, kind: &str) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": self.network, "type": "millrace-cni", "portKind": kind,
            "agentSocket": self.path("cni.sock"),
        })
    }

    /// Calls the CNI executable as a runtime does (CNI 1.1.0 §2) and returns its answer.
    ///
    /// # Errors
    /// The executable's own error, as text.
    pub(super) fn cni(&self, command: &str, environment: &[(&str, &str)], config: &Value) -> Result<Value> {
        let mut child = Command::new(self.path("millrace-cni"))
            .env("CNI_COMMAND", command)
            .env("CNI_PATH", &self.folder)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("millrace-cni")?;
        if let Some(stdin) = child.stdin.as_mut() {
            stdin.write_all(config.to_string().as_bytes()).context("millrace-cni's input")?;
        }
        let output = child.wait_with_output().context("millrace-cni")?;
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        if output.status.success() {
            return Ok(answer);
        }
        let text = |key: &str| answer.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("CNI {command} failed: {} {} {}", text("msg"), text("details"), said.trim())
    }

    /// Runs the command line tool against this node and returns what it printed.
    ///
    /// # Errors
    /// The tool's own, as text.
    pub(super) fn tool(&self, words: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(words)
            .arg("--run-dir")
            .arg(&self.folder)
            .output()
            .with_context(|| format!("millrace {}", words.join(" ")))?;
        if !output.status.success() {
            bail!("millrace {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// What the switch's workers have done since they started.
pub(super) struct WorkerCycles {
    /// Frames received.
    pub(super) frames: u64,
    /// Cycles of turns that moved frames.
    pub(super) busy: u64,
}

/// The switch's books.
pub(super) struct Ledger {
    pub(super) rx: u64,
    pub(super) copies: u64,
    pub(super) tx: u64,
    pub(super) drops: u64,
    by_reason: Vec<(String, u64)>,
}

impl Ledger {
    /// The frames that were dropped for this reason.
    pub(super) fn dropped(&self, reason: &str) -> u64 {
        self.by_reason.iter().filter(|(label, _)| label == reason).map(|(_, frames)| frames).sum()
    }

    /// The reasons of the drops, in brackets; nothing if there were none.
    pub(super) fn reasons(&self) -> String {
        let reasons: Vec<_> =
            self.by_reason.iter().map(|(label, frames)| format!("{label} {frames}")).collect();
        if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) }
    }
}

impl Node {
    fn json(&self, what: &str) -> Result<Value> {
        let answer = self.tool(&["get", what, "-o", "json"])?;
        serde_json::from_str(&answer).with_context(|| format!("millrace get {what} -o json"))
    }

    /// True once it knows the station that leads to each other node.
    pub(super) fn reaches_others(&self) -> Result<bool> {
        let answer = self.json("nodes")?;
        let nodes = answer["nodes"].as_array().context("nodes")?;
        let mut others = nodes.iter().filter(|node| node["own"] == false);
        Ok(others.all(|node| node["next_hop"].as_str().is_some_and(|mac| !mac.is_empty())))
    }

    /// How packets are taken from its uplink, in words; `None` while the switch has none.
    pub(super) fn uplink(&self) -> Result<Option<String>> {
        let answer = self.json("ports")?;
        let ports = answer["ports"].as_array().context("ports")?;
        let uplink = ports.iter().find(|port| port["name"] == "uplink" && port["link_up"] == true);
        let Some(detail) = uplink.and_then(|port| port["detail"].as_str()) else { return Ok(None) };
        let (netdev, how) = detail.split_once(": ").unwrap_or((detail, ""));
        // `auto` takes XDP where it is allowed and the driver leaves packets in the switch's memory: a veth's does not.
        let how = if how.starts_with("packet") { "a packet socket (no zero-copy XDP here)" } else { "XDP" };
        Ok(Some(format!("{netdev}, by {how}")))
    }

    /// Frames and busy cycles of all workers.
    pub(super) fn worker_cycles(&self) -> Result<WorkerCycles> {
        let answer = self.json("workers")?;
        let workers = answer["workers"].as_array().context("workers")?;
        let sum = |key: &str| workers.iter().filter_map(|worker| worker[key].as_u64()).sum();
        Ok(WorkerCycles { frames: sum("frames"), busy: sum("busy_cycles") })
    }

    /// The books, over all ports that ever were.
    pub(super) fn ledger(&self) -> Result<Ledger> {
        let answer = self.json("ports")?;
        let total = &answer["total"];
        let count = |key: &str| total[key].as_u64().with_context(|| format!("total.{key}"));
        let by_reason = total["drops"].as_object().map(|drops| {
            drops.iter().map(|(label, frames)| (label.clone(), frames.as_u64().unwrap_or(0))).collect()
        });
        Ok(Ledger {
            rx: count("rx_frames")?,
            copies: count("copies")?,
            tx: count("tx_frames")?,
            drops: count("dropped_frames")?,
            by_reason: by_reason.unwrap_or_default(),
        })
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for child in self.children.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
