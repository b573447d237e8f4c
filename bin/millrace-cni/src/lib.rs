//! How does a call of the container runtime reach the agent? Environment and stdin in, one question to the agent's socket,
//! its answer to stdout. CNI 1.1, §"Execution Protocol".
//!
//! The runtime executes this program once or twice for every pod, so it is small, and does nothing that the agent can do.
//! Only VERSION is answered without the agent.
//!
//! **Invariant:** no state, no async runtime, no thread; whatever happens, stdout has one JSON object.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use local_api::cni::{
    Answer, CniError, Code, Command, DEFAULT_SOCKET, MAX_STDIN_BYTES, Request, SOCKET_ENV, Version,
    read_frame, versions_answer,
};
use serde_json::Value;

/// The variables of the specification: nothing else of the runtime's environment leaves this process.
const VARIABLES: [&str; 6] =
    ["CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH"];

/// How long the agent may take. Below the kubelet's limit for a sandbox (four minutes), so that the runtime hears a reason.
const AGENT_TIMEOUT: Duration = Duration::from_secs(120);

/// Serves one call: environment and stdin as given, stdout and exit code of this process.
pub fn run(env: impl IntoIterator<Item = (OsString, OsString)>, stdin: impl Read) -> ExitCode {
    std::panic::set_hook(Box::new(|panic| {
        let error =
            CniError::new(Code::INTERNAL, format!("millrace-cni has a defect, please report it: {panic}"));
        let _ = say(error.to_json(Version::V1_1_0).to_string().as_bytes());
        std::process::exit(1);
    }));
    let env: Vec<_> = env.into_iter().collect();
    let var = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let answer = answer(var, stdin);
    // A runtime that has given up closed the pipe; there is nobody left to tell.
    match say(&answer.stdout) {
        Ok(()) => ExitCode::from(answer.exit_code),
        Err(_) => ExitCode::FAILURE,
    }
}

fn say(text: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text)?;
    stdout.flush()
}

/// Serves one call; whatever fails becomes an error that the runtime can read.
fn answer(var: impl Fn(&str) -> Option<OsString>, stdin: impl Read) -> Answer {
    let mut version = Version::V1_1_0;
    serve(var, stdin, &mut version).unwrap_or_else(|error| Answer {
        exit_code: 1,
        stdout: error.to_json(version).to_string().into_bytes(),
    })
}

/// What this program itself needs of the configuration; all else is the agent's.
#[derive(Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Conf {
    cni_version: Option<String>,
    agent_socket: Option<PathBuf>,
}

/// `version` is set as soon as it is known: errors are told in it.
fn serve(
    var: impl Fn(&str) -> Option<OsString>,
    stdin: impl Read,
    version: &mut Version,
) -> Result<Answer, CniError> {
    let mut request = Request { env: environment(&var)?, stdin: Vec::new() };
    // Before stdin is read: a person who tries the program on a terminal is not left waiting.
    let command = command(&request)?;
    request.stdin = read_stdin(stdin)?;
    let conf: Conf = if request.stdin.is_empty() && command == Command::Version {
        Conf::default()
    } else {
        serde_json::from_slice(&request.stdin).map_err(|error| {
            CniError::new(Code::DECODING, format!("the network configuration cannot be read: {error}"))
        })?
    };
    let asked = conf.cni_version.as_deref();
    *version = asked.and_then(Version::parse).unwrap_or(Version::V1_1_0);
    if command == Command::Version {
        return Ok(success(&versions_answer(asked)));
    }
    let socket =
        conf.agent_socket.or_else(|| var(SOCKET_ENV).filter(|path| !path.is_empty()).map(PathBuf::from));
    let socket = socket.unwrap_or_else(|| PathBuf::from(DEFAULT_SOCKET));
    ask(&socket, &request).map_err(|error| agent_away(&socket, command, &error))
}

fn environment(var: &impl Fn(&str) -> Option<OsString>) -> Result<Vec<(String, String)>, CniError> {
    let text = |name: &str, value: OsString| {
        let value = value.into_string().ok().filter(|value| value.len() <= usize::from(u16::MAX));
        value.map(|value| (name.to_owned(), value)).ok_or_else(|| {
            CniError::new(
                Code::INVALID_ENVIRONMENT,
                format!("{name} is not UTF-8, or longer than 65535 bytes"),
            )
        })
    };
    VARIABLES.iter().filter_map(|name| Some(text(name, var(name)?))).collect()
}

fn command(request: &Request) -> Result<Command, CniError> {
    let invalid = |msg: &str| CniError::new(Code::INVALID_ENVIRONMENT, msg);
    let text = request.var("CNI_COMMAND").ok_or_else(|| {
        invalid("CNI_COMMAND is not set: this program is called by a container runtime, see the CNI specification")
    })?;
    Command::parse(text).ok_or_else(|| {
        invalid(&format!("CNI_COMMAND: {text:?} is none of ADD, DEL, CHECK, GC, STATUS, VERSION"))
    })
}

fn read_stdin(stdin: impl Read) -> Result<Vec<u8>, CniError> {
    let mut bytes = Vec::new();
    let read = stdin.take(MAX_STDIN_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error| {
        CniError::new(Code::IO, format!("the network configuration cannot be read: {error}"))
    })?;
    if bytes.len() > MAX_STDIN_BYTES {
        let msg = format!("the network configuration is longer than {MAX_STDIN_BYTES} bytes");
        return Err(CniError::new(Code::IO, msg));
    }
    Ok(bytes)
}

fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut agent = UnixStream::connect(socket)?;
    agent.set_read_timeout(Some(AGENT_TIMEOUT))?;
    agent.set_write_timeout(Some(AGENT_TIMEOUT))?;
    agent.write_all(&request.encode())?;
    Ok(Answer::decode(&read_frame(&mut agent)?)?)
}

/// Temporary, as an agent restarts: the runtime is to call again, DEL and GC included, so that nothing is forgotten.
fn agent_away(socket: &Path, command: Command, error: &io::Error) -> CniError {
    let code = if command == Command::Status { Code::NOT_AVAILABLE } else { Code::TRY_AGAIN };
    let (what, remedy) = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            ("refuses this user", "call the plugin as root or as the agent's user")
        }
        io::ErrorKind::InvalidData => ("gives no answer to read", "install plugin and agent of one release"),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
            ("hung up", "it restarts, or refuses this user: see its log")
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ("takes too long", "see its log"),
        _ => (
            "does not answer",
            "start it with `millrace agent`, or set agentSocket in the network configuration",
        ),
    };
    CniError::new(code, format!("the Millrace agent on {} {what}: {remedy}", socket.display()))
        .with_details(error.to_string())
}

fn success(json: &Value) -> Answer {
    Answer { exit_code: 0, stdout: json.to_string().into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn call(env: &[(&str, &str)], stdin: &str) -> (u8, Value) {
        let var = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let answer = answer(var, stdin.as_bytes());
        (answer.exit_code, serde_json::from_slice(&answer.stdout).unwrap())
    }

    #[test]
    fn version_when_no_agent_runs_is_answered() {
        let (exit, json) = call(&[("CNI_COMMAND", "VERSION")], r#"{"cniVersion":"0.4.0"}"#);
        assert_eq!((exit, json["cniVersion"].as_str()), (0, Some("0.4.0")));
        assert_eq!(json["supportedVersions"].as_array().unwrap().len(), 5);
        assert_eq!(call(&[("CNI_COMMAND", "VERSION")], "").1["cniVersion"], "1.1.0");
    }

    #[test]
    fn call_when_environment_is_wrong_gives_code_4() {
        for env in [&[][..], &[("CNI_COMMAND", "")], &[("CNI_COMMAND", "MOVE")]] {
            let (exit, json) = call(env, "{}");
            assert_eq!((exit, json["code"].as_u64()), (1, Some(4)), "{json}");
        }
    }

    #[test]
    fn call_when_stdin_is_no_configuration_gives_code_6() {
        for stdin in ["", "{", "[]x", "null5"] {
            assert_eq!(call(&[("CNI_COMMAND", "ADD")], stdin).1["code"], 6, "{stdin:?}");
        }
    }

    #[test]
    fn call_when_stdin_has_no_end_gives_code_5() {
        let var = |name: &str| (name == "CNI_COMMAND").then(|| "ADD".into());
        let answer = answer(var, io::repeat(b' '));
        let json: Value = serde_json::from_slice(&answer.stdout).unwrap();
        assert_eq!((answer.exit_code, json["code"].as_u64()), (1, Some(5)));
    }

    #[test]
    fn call_when_agent_is_away_asks_to_try_again_with_remedy() {
        let conf = r#"{"cniVersion":"1.0.0","agentSocket":"/nonexistent/cni.sock"}"#;
        for (command, code) in [("ADD", 11), ("DEL", 11), ("GC", 11), ("CHECK", 11), ("STATUS", 50)] {
            let (exit, json) = call(&[("CNI_COMMAND", command)], conf);
            assert_eq!((exit, json["code"].as_u64()), (1, Some(code)));
            assert_eq!(json["cniVersion"], "1.0.0");
            assert!(json["msg"].as_str().unwrap().contains("start it with `millrace agent`"), "{json}");
        }
    }

    #[test]
    fn call_when_agent_answers_passes_request_and_answer_on() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("cni.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let agent = std::thread::spawn(move || {
            let (mut peer, _) = listener.accept().unwrap();
            let request = Request::decode(&read_frame(&mut peer).unwrap()).unwrap();
            let answer = Answer { exit_code: 7, stdout: br#"{"from":"agent"}"#.to_vec() };
            peer.write_all(&answer.encode()).unwrap();
            request
        });
        let conf = r#"{"cniVersion":"1.1.0","name":"x"}"#;
        let env = [
            ("CNI_COMMAND", "ADD"),
            ("CNI_IFNAME", "eth0"),
            (SOCKET_ENV, socket.to_str().unwrap()),
            ("HOME", "/"),
        ];
        let (exit, json) = call(&env, conf);
        assert_eq!((exit, json["from"].as_str()), (7, Some("agent")));
        let request = agent.join().unwrap();
        assert_eq!(request.stdin, conf.as_bytes());
        assert_eq!((request.var("CNI_IFNAME"), request.var("HOME")), (Some("eth0"), None));
    }

    #[test]
    fn call_when_agent_hangs_up_or_talks_nonsense_asks_to_try_again() {
        for nonsense in
            [&b""[..], b"\x01\0\0\0\x09short", b"\x02\0\0\0\0", b"\x01\xff\xff\xff\xff", b"\x01\0\0\0\0"]
        {
            let dir = tempfile::tempdir().unwrap();
            let socket = dir.path().join("cni.sock");
            let listener = UnixListener::bind(&socket).unwrap();
            let agent = std::thread::spawn(move || {
                let (mut peer, _) = listener.accept().unwrap();
                read_frame(&mut peer).unwrap();
                peer.write_all(nonsense).unwrap();
            });
            let env = [("CNI_COMMAND", "DEL"), (SOCKET_ENV, socket.to_str().unwrap())];
            assert_eq!(call(&env, r#"{"cniVersion":"1.1.0"}"#).1["code"], 11, "{nonsense:?}");
            agent.join().unwrap();
        }
    }
}
