//! The load: one TCP stream by iperf3, which is the field's usual instrument.

use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use lab::Netns;
use serde_json::Value;

use crate::netns::{self, ADDRESSES};

/// How long the server may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);
/// What a transfer may take beyond its time.
const GRACE_S: u64 = 10;
/// iperf3's port, as /proc/net/tcp writes it behind an address, and a socket that listens.
const LISTENING: &str = ":1451 00000000:0000 0A";

/// How messages become frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Messages {
    /// Each is sent at once (TCP_NODELAY).
    Apart,
    /// The kernel may put small ones together.
    Together,
}

/// What one transfer moved.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transfer {
    /// Payload rate at the receiver.
    pub(crate) gbps: f64,
    /// Payload received.
    pub(crate) bytes: f64,
    pub(crate) retransmits: f64,
}

/// An iperf3 server in a pod, which sleeps while nobody calls.
#[derive(Debug)]
pub(crate) struct Server(Child);

impl Server {
    /// Starts it in the second pod.
    pub(crate) fn start(pod: &Netns) -> anyhow::Result<Self> {
        let mut command = netns::command(pod, "iperf3");
        command.args(["--server", "--bind", &ADDRESSES[1].to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Self(command.spawn().context("cannot run setpriv (Debian package util-linux)")?);
        let deadline = Instant::now() + PATIENCE;
        while !pod.run(|| fs::read_to_string("/proc/thread-self/net/tcp"))?.contains(LISTENING) {
            if let Some(status) = server.0.try_wait()? {
                bail!("iperf3 does not serve ({status}): is it installed (apt-get install iperf3)?");
            }
            ensure!(Instant::now() < deadline, "the iperf3 server does not listen in {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _status = self.0.wait();
    }
}

/// One stream from `pod` to the server, in messages of `bytes`, for `seconds`.
pub(crate) fn transfer(
    pod: &Netns,
    bytes: u64,
    messages: Messages,
    seconds: u64,
) -> anyhow::Result<Transfer> {
    let mut command = netns::command(pod, "timeout");
    command.arg((seconds + GRACE_S).to_string());
    command.args(["iperf3", "--json", "--connect-timeout", "3000", "--client", &ADDRESSES[1].to_string()]);
    command.args(["--length", &bytes.to_string(), "--time", &seconds.to_string()]);
    if messages == Messages::Apart {
        command.arg("--no-delay");
    }
    let output = command.stdin(Stdio::null()).output().context("cannot run setpriv")?;
    parse(&String::from_utf8_lossy(&output.stdout))
        .with_context(|| format!("iperf3 ({}): {}", output.status, String::from_utf8_lossy(&output.stderr)))
}

/// Reads iperf3's JSON. What it complains of stands there too.
fn parse(text: &str) -> anyhow::Result<Transfer> {
    let answer: Value = serde_json::from_str(text).context("iperf3 printed no JSON")?;
    if let Some(error) = answer.get("error").and_then(Value::as_str) {
        bail!("iperf3 says: {error}");
    }
    let number = |pointer: &str| answer.pointer(pointer).and_then(Value::as_f64);
    let received = |field: &str| {
        number(&format!("/end/sum_received/{field}")).with_context(|| format!("iperf3 gave no {field}"))
    };
    let transfer = Transfer {
        gbps: received("bits_per_second")? / 1e9,
        bytes: received("bytes")?,
        retransmits: number("/end/sum_sent/retransmits").unwrap_or(0.0),
    };
    ensure!(transfer.bytes > 0.0, "nothing was received");
    Ok(transfer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_when_printed_is_read() {
        let text = r#"{"end": {"sum_sent": {"retransmits": 3},
            "sum_received": {"bits_per_second": 2.5e9, "bytes": 312500000}}}"#;
        let expected = Transfer { gbps: 2.5, bytes: 312_500_000.0, retransmits: 3.0 };
        assert_eq!(parse(text).unwrap(), expected);
    }

    #[test]
    fn transfer_when_failed_says_why() {
        let said = |text| format!("{:#}", parse(text).unwrap_err());
        assert!(said(r#"{"error": "unable to connect"}"#).contains("unable to connect"));
        assert!(said("").contains("no JSON"));
        assert!(said(r#"{"end": {}}"#).contains("bits_per_second"));
        let nothing = r#"{"end": {"sum_received": {"bits_per_second": 0, "bytes": 0}}}"#;
        assert!(said(nothing).contains("nothing was received"));
    }
}
