//! The engine's IPAM plugins, executed as the runtime would (CNI 1.1 §"Delegated Plugin Execution Procedure").

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use local_api::cni::{AddResult, Code, Command};
use reconcile::delegate::{Delegate, DelegateError, Leased};
use reconcile::kernel::Route;
use reconcile::record::{Address, Delegation};

/// How long a plugin may take. Below what the CNI plugin waits for the agent.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;

/// Plugins as programs in the directories of CNI_PATH.
pub(crate) struct Executed;

impl Delegate for Executed {
    fn add(&self, call: &Delegation) -> Result<Leased, DelegateError> {
        let stdout = execute(call, Command::Add)?;
        let result = AddResult::from_slice(&stdout);
        let result = result
            .map_err(|error| failed(call, Code::DECODING, format!("its result cannot be read: {error}")))?;
        leased(result).map_err(|reason| failed(call, Code::DECODING, reason))
    }

    fn del(&self, call: &Delegation) -> Result<(), DelegateError> {
        execute(call, Command::Del).map(drop)
    }
}

/// Executes the plugin with the variables and the configuration of `call`; gives what it printed.
///
/// # Errors
/// It cannot be executed, takes too long, or fails: with its own code and message where it gave them.
pub(crate) fn execute(call: &Delegation, command: Command) -> Result<Vec<u8>, DelegateError> {
    let program = find(call)?;
    let io = |error: std::io::Error| failed(call, Code::IO, format!("{}: {error}", program.display()));
    let mut child = Process::new(&program)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .envs(call.env.iter().map(|(key, value)| (key, value)))
        .env("CNI_COMMAND", command.as_str())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(io)?;
    let stdout = converse(&mut child, &call.config);
    if stdout.is_none() {
        // Its pipes close with it, which ends the threads; a failure means that it is gone already.
        let _ = child.kill();
    }
    let status = child.wait().map_err(io)?;
    let stdout =
        stdout.ok_or_else(|| failed(call, Code::TRY_AGAIN, format!("takes longer than {TIMEOUT:?}")))?;
    if status.success() { Ok(stdout) } else { Err(its_error(call, &stdout, &status.to_string())) }
}

/// Gives stdin and takes stdout, side by side, for a plugin may print before it reads. `None` if it takes too long.
fn converse(child: &mut Child, config: &[u8]) -> Option<Vec<u8>> {
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let config = config.to_vec();
    std::thread::spawn(move || {
        // A plugin that does not read its configuration says so itself.
        stdin.map(|mut stdin| stdin.write_all(&config))
    });
    let (done, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = stdout.map(|stdout| stdout.take(MAX_OUTPUT_BYTES).read_to_end(&mut bytes));
        // Nobody waits any more after the timeout.
        let _ = done.send(if matches!(read, Some(Ok(_))) { bytes } else { Vec::new() });
    });
    answer.recv_timeout(TIMEOUT).ok()
}

/// The plugin's program: the first of that name in the directories of CNI_PATH.
fn find(call: &Delegation) -> Result<PathBuf, DelegateError> {
    let name = call.plugin.as_str();
    if name.is_empty() || name.contains('/') || name == "." || name == ".." {
        return Err(failed(
            call,
            Code::INVALID_CONFIG,
            "ipam.type: is no plugin's name: write as in host-local".into(),
        ));
    }
    let path = call.env.iter().find(|(key, _)| key == "CNI_PATH").map_or("", |(_, path)| path.as_str());
    let mut candidates = path.split(':').filter(|dir| !dir.is_empty()).map(|dir| Path::new(dir).join(name));
    candidates.find(|candidate| candidate.is_file()).ok_or_else(|| {
        let reason =
            format!("is not in CNI_PATH ({path}): install it there, or remove ipam to use Millrace's own");
        failed(call, Code::INVALID_CONFIG, reason)
    })
}

fn its_error(call: &Delegation, stdout: &[u8], status: &str) -> DelegateError {
    #[derive(serde::Deserialize)]
    struct Said {
        code: u32,
        #[serde(default)]
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_slice::<Said>(stdout) {
        Ok(Said { code, msg, details }) if details.is_empty() => failed(call, Code(code), msg),
        Ok(Said { code, msg, details }) => failed(call, Code(code), format!("{msg}: {details}")),
        Err(_) => failed(call, Code::INTERNAL, format!("ended with {status} and without a reason")),
    }
}

fn failed(call: &Delegation, code: Code, reason: String) -> DelegateError {
    DelegateError { plugin: call.plugin.clone(), code: code.0, reason }
}

fn leased(result: AddResult) -> Result<Leased, String> {
    let address = |ip: local_api::cni::Ip| Address { net: ip.address, gateway: ip.gateway };
    let route = |route: local_api::cni::Route| Route { destination: route.dst, gateway: route.gw };
    Ok(Leased {
        addresses: result.ips.into_iter().map(address).collect(),
        routes: result.routes.into_iter().map(route).collect(),
        dns: super::cni::dns(&result.dns)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A plugin that is the shell, whose configuration is the script. (A script file that was just written cannot be
    /// executed while another test's fork still holds it open for writing: ETXTBSY.)
    fn plugin(script: &str) -> (tempfile::TempDir, Delegation) {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/bin/sh", dir.path().join("test-ipam")).unwrap();
        let path = format!("/nonexistent:{}", dir.path().display());
        let env = [("CNI_PATH", path.as_str()), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
        let call = Delegation {
            plugin: "test-ipam".to_owned(),
            env: env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec(),
            config: format!("{script}\n").into_bytes(),
        };
        (dir, call)
    }

    #[test]
    fn add_when_the_plugin_gives_a_result_takes_it() {
        let (_dir, call) = plugin(
            r#"[ "$CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME" = "ADD c1 eth0" ] || exit 9
            echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.0.2/24","gateway":"10.9.0.1"}],
                   "routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.9.0.53"]}}'"#,
        );
        let leased = Executed.add(&call).unwrap();
        assert_eq!(leased.addresses[0].net.to_string(), "10.9.0.2/24");
        assert_eq!(leased.routes[0].gateway, None);
        assert_eq!(leased.dns.nameservers.len(), 1);
    }

    #[test]
    fn call_when_the_plugin_fails_gives_its_code_and_words() {
        let (_dir, call) = plugin(r#"echo '{"code":42,"msg":"no lease","details":"at all"}'; exit 1"#);
        let error = Executed.add(&call).unwrap_err();
        assert_eq!((error.code, error.reason.as_str()), (42, "no lease: at all"));
        assert!(Executed.del(&call).is_err());
        let (_dir, call) = plugin("echo nonsense; exit 3");
        assert!(Executed.add(&call).unwrap_err().reason.contains("without a reason"));
    }

    #[test]
    fn add_when_the_plugin_talks_nonsense_is_refused() {
        for script in ["echo nonsense", "exit 0", r#"echo '{"cniVersion":"0.2.0","ip4":{}}'"#] {
            let (_dir, call) = plugin(script);
            assert_eq!(Executed.add(&call).unwrap_err().code, Code::DECODING.0, "{script}");
        }
    }

    #[test]
    fn call_when_the_plugin_neither_reads_nor_stops_talking_ends() {
        let (_dir, mut call) = plugin("exec yes");
        call.config.resize(1 << 20, b' ');
        assert!(Executed.add(&call).is_err());
    }

    #[test]
    fn call_when_the_plugin_is_no_name_or_not_installed_says_where_it_was_sought() {
        let (_dir, mut call) = plugin("true");
        for name in ["", "..", "../test-ipam", "/bin/sh"] {
            call.plugin = name.to_owned();
            assert_eq!(Executed.del(&call).unwrap_err().code, Code::INVALID_CONFIG.0, "{name:?}");
        }
        call.plugin = "host-nonlocal".to_owned();
        assert!(Executed.del(&call).unwrap_err().reason.contains("/nonexistent"));
    }
}
