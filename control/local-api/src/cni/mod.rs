//! What does the container runtime ask, and how is it answered? CNI 0.3.0 to 1.1.0, and the frames between plugin and agent.
//!
//! [`Request`] is what the plugin was called with; [`Call::parse`] checks it; [`AddResult`] is an answer in the newest
//! version, written and read in any. `§` refers to SPEC.md of CNI 1.1.0.
//!
//! Limits: at most [`MAX_STDIN_BYTES`] of configuration; versions before 0.3.0 are refused with code 1.
mod call;
mod conf;
mod error;
mod frame;
mod result;
mod version;

pub use call::{Call, CallArgs, Command};
pub use conf::{Ipam, NetConf, ValidAttachment};
pub use error::{CniError, Code};
pub use frame::{
    Answer, FrameError, HEADER_BYTES, MAX_FRAME_BYTES, MAX_STDIN_BYTES, Request, payload_len, read_frame,
};
pub use result::{AddResult, Dns, Interface, Ip, ResultError, Route};
pub use version::{SUPPORTED, Version, version_of, versions_answer};

/// Where the plugin finds the agent when neither the configuration's `agentSocket` nor [`SOCKET_ENV`] says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/millrace/cni.sock";

/// The environment variable that names the agent's socket.
pub const SOCKET_ENV: &str = "MILLRACE_CNI_SOCKET";

/// Reads `data` as everything that comes from outside; for fuzzing. Must return, whatever it is given.
pub fn fuzz(data: &[u8]) {
    let _ = Answer::decode(data);
    if let Some(header) = data.first_chunk::<HEADER_BYTES>() {
        let _ = payload_len(*header);
    }
    if let Ok(request) = Request::decode(data) {
        let again = Request::decode(&request.encode()[HEADER_BYTES..]);
        assert_eq!(again.as_ref(), Ok(&request), "a request survives the wire");
        if let Ok(call) = Call::parse(&request) {
            let _ = call.conf.prev_result();
            let _ = call.conf.device_id();
        }
    }
    if let Ok(result) = AddResult::from_slice(data) {
        for version in SUPPORTED {
            let json = result.to_json(version).to_string();
            let read = AddResult::from_slice(json.as_bytes()).expect("our own result can be read");
            assert_eq!(read.to_json(version).to_string(), json, "a result survives its version");
        }
    }
}
