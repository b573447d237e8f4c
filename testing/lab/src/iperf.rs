//! How much TCP passes between two namespaces, by the field's usual instrument? iperf3, one stream.

use std::io;
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::Netns;

/// The receiver's payload rate in Gbit/s of one iperf3 stream from `client` to `address` inside `server`, written in
/// messages of `message_bytes` for `duration`, rounded up to whole seconds (iperf3 knows no parts, and takes 0 for ever).
///
/// # Errors
/// iperf3 is missing or failed, with what it said.
pub fn iperf3(
    client: &Netns,
    server: &Netns,
    address: IpAddr,
    message_bytes: usize,
    duration: Duration,
) -> io::Result<f64> {
    let _server = Server(server.run(|| {
        let mut command = Command::new("iperf3");
        command.args(["--server", "--one-off", "--bind", &address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
    })?);
    let seconds = duration.as_secs_f64().ceil().max(1.0);
    let patience = seconds + 10.0;
    let words = format!(
        "{patience} iperf3 --client {address} --length {message_bytes} --time {seconds} --json --connect-timeout 2000"
    );
    let mut said = String::new();
    // The server says nowhere that it listens: the first attempts may be too early.
    for _ in 0..50 {
        match client.command("timeout", &words).and_then(|answer| rate(&answer)) {
            Ok(gbps) => return Ok(gbps),
            Err(error) => said = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err(io::Error::other(said))
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rate(answer: &str) -> io::Result<f64> {
    let answer: Value = serde_json::from_str(answer).map_err(io::Error::other)?;
    let bits = answer.pointer("/end/sum_received/bits_per_second").and_then(Value::as_f64);
    bits.map(|bits| bits / 1e9).ok_or_else(|| io::Error::other(format!("iperf3 gave no rate: {answer}")))
}
