//! What do the processes of a node say to each other?
//!
//! - [`cni`]: container runtime to `millrace-cni` (JSON), and `millrace-cni` to the agent (frames). Needs no async runtime.
//! - `switch_v1`: agent and CLI to the switch; `agent_v1`: CLI to the agent; `uds`: gRPC on unix sockets, for root and the
//!   process's own user only (all with feature `grpc`).
#![forbid(unsafe_code)]

pub mod cni;
#[cfg(feature = "grpc")]
pub mod uds;

/// The switch's service, generated from `proto/switch.proto`, which documents it.
#[cfg(feature = "grpc")]
pub mod switch_v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::too_many_lines,
        clippy::allow_attributes_without_reason,
        reason = "generated; the documentation is in the proto file"
    )]
    tonic::include_proto!("millrace.switch.v1");
}

/// The agent's service, generated from `proto/agent.proto`, which documents it.
#[cfg(feature = "grpc")]
pub mod agent_v1 {
    #![allow(
        missing_docs,
        unreachable_pub,
        unused_qualifications,
        clippy::all,
        clippy::too_many_lines,
        clippy::allow_attributes_without_reason,
        reason = "generated; the documentation is in the proto file"
    )]
    tonic::include_proto!("millrace.agent.v1");
}
