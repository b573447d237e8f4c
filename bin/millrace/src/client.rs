//! How does the CLI reach the two processes, and what does it say when nobody answers?

use std::error::Error;
use std::io;
use std::path::Path;

use anyhow::anyhow;
use local_api::agent_v1::agent_client::AgentClient;
use local_api::switch_v1::switch_client::SwitchClient;
use tonic::transport::Channel;
use tonic::{Code, Response, Status};

use crate::run_dir::RunDir;

/// Flow dumps of a full cache are larger than gRPC's usual 4 MiB.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// Asks the switch. Must be called within a tokio runtime.
pub(crate) fn switch(run_dir: &RunDir) -> SwitchClient<Channel> {
    SwitchClient::new(local_api::uds::channel(&run_dir.switch_socket()))
        .max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// Asks the agent. Must be called within a tokio runtime.
pub(crate) fn agent(run_dir: &RunDir) -> AgentClient<Channel> {
    AgentClient::new(local_api::uds::channel(&run_dir.agent_socket()))
        .max_decoding_message_size(MAX_ANSWER_BYTES)
}

/// The switch's answer, or what to do about its absence.
///
/// # Errors
/// Nobody answers, or the switch says no.
pub(crate) fn switch_says<T>(answer: Result<Response<T>, Status>, run_dir: &RunDir) -> anyhow::Result<T> {
    let explain = |status: Status| explain(&status, "switch", &run_dir.switch_socket());
    answer.map(Response::into_inner).map_err(explain)
}

/// The agent's answer, or what to do about its absence.
///
/// # Errors
/// Nobody answers, or the agent says no.
pub(crate) fn agent_says<T>(answer: Result<Response<T>, Status>, run_dir: &RunDir) -> anyhow::Result<T> {
    let explain = |status: Status| explain(&status, "agent", &run_dir.agent_socket());
    answer.map(Response::into_inner).map_err(explain)
}

fn explain(status: &Status, who: &str, socket: &Path) -> anyhow::Error {
    let socket = socket.display();
    if status.code() != Code::Unavailable {
        return anyhow!("the {who} on {socket} refuses: {}", status.message());
    }
    match connect_error(status) {
        Some(io::ErrorKind::PermissionDenied) => {
            anyhow!("not allowed to speak to the {who} on {socket}: be root, or the user that it runs as")
        }
        Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            anyhow!(
                "no {who} answers on {socket}: start one with `millrace {who}`, or point --run-dir to its directory"
            )
        }
        // Accepted and closed again: the credentials were not liked, or the process has just ended.
        _ => anyhow!(
            "the {who} on {socket} hung up: be root, or the user that it runs as; or it has just ended"
        ),
    }
}

/// Why the connection could not be made, if that is what `status` comes from.
fn connect_error(status: &Status) -> Option<io::ErrorKind> {
    let mut cause: Option<&dyn Error> = status.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}
