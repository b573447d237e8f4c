//! `millrace agent`: who attaches pods to networks? Control of one node, standalone, driven by a file of networks.
//!
//! It may be killed and started at any time without touching a packet: what it must not forget is in its state directory,
//! and the switch forwards without it.
//!
//! - `cni`: a call of the container runtime becomes one of the engine. `plugin_socket`: how the call arrives.
//! - `datapath`: the engine's switch, over gRPC. `delegate`: the engine's IPAM plugins, executed.
//! - `networks`: the networks file, read again when it changes. `service`: what the CLI asks.
mod cni;
mod datapath;
mod delegate;
mod networks;
mod plugin_socket;
mod policy;
mod service;

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use local_api::agent_v1::agent_server::AgentServer;
use local_api::uds::{self, Listener};
use reconcile::{Engine, Layout, Rim};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tonic::transport::Server;

use self::datapath::GrpcSwitch;
use self::networks::NetworksFile;
use self::service::Service;

/// The arguments of `millrace agent`.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AgentArgs {
    /// The networks that pods can be attached to, and the nodes (YAML), or a directory of such files; read again when they
    /// change
    #[arg(
        long,
        env = "MILLRACE_NETWORKS",
        value_name = "PATH",
        default_value = "/etc/millrace/networks.yaml"
    )]
    pub(crate) networks: PathBuf,
    /// Which of the nodes this one is [default: the host's name]
    #[arg(long, env = "MILLRACE_NODE", value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// Where the agent keeps what it must not forget: attachments, addresses, port numbers
    #[arg(long, env = "MILLRACE_STATE_DIR", value_name = "DIR", default_value = "/var/lib/millrace")]
    pub(crate) state_dir: PathBuf,
    /// Where sockets are: cni.sock and agent.sock of the agent, vhost/ of the pods, switch.sock of the switch
    #[arg(long, env = "MILLRACE_RUN_DIR", value_name = "DIR", default_value = "/run/millrace")]
    pub(crate) run_dir: PathBuf,
    /// The switch's socket [default: RUN_DIR/switch.sock]
    #[arg(long, env = "MILLRACE_SWITCH_SOCKET", value_name = "PATH")]
    pub(crate) switch_socket: Option<PathBuf>,
    /// Where the kubelet keeps the volumes of pods
    #[arg(long, value_name = "DIR", default_value = "/var/lib/kubelet")]
    pub(crate) kubelet_dir: PathBuf,
}

/// How often the switch and the networks file are looked at.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Every how many looks half-made attachments and failed ports are tried again.
const CONVERGE_EVERY: u32 = 30;
/// How long calls that are being served may take to end when the agent stops. What they leave half-made is undone by the
/// next agent.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The agent cannot start: the text says what to do.
pub(crate) async fn run(args: AgentArgs) -> anyhow::Result<()> {
    make_dir(&args.state_dir, 0o700)?;
    make_dir(&args.run_dir, 0o755)?;
    let node = args.node.clone().unwrap_or_else(host_name);
    let mut networks = NetworksFile::new(args.networks.clone(), node);
    let defined = networks.load().with_context(|| format!("read {}", args.networks.display()))?;
    let switch_socket = args.switch_socket.clone().unwrap_or_else(|| args.run_dir.join("switch.sock"));
    let engine = Arc::new(open_engine(&args, &switch_socket)?);
    // Before anything is changed: a second agent with another state directory must not get further than this.
    let plugins = Listener::bind(&args.run_dir.join("cni.sock"))?;
    let clients = Listener::bind(&args.run_dir.join("agent.sock"))?;
    engine.set_networks(&defined)?;
    blocking(&engine, converge).await;

    let (stop, stopped) = watch::channel(false);
    let service = Service::new(Arc::clone(&engine), switch_socket, args.networks.clone(), networks.error());
    let grpc = Server::builder()
        .add_service(AgentServer::new(service))
        .serve_with_incoming_shutdown(clients, told_to_stop(stopped.clone()));
    let grpc = tokio::spawn(grpc);
    let calls = tokio::spawn(plugin_socket::serve(plugins, Arc::clone(&engine), stopped.clone()));
    let watcher = tokio::spawn(watch_all(Arc::clone(&engine), networks, stopped));
    tracing::info!(run_dir = %args.run_dir.display(), networks = defined.names().count(), "the agent serves");

    signalled().await?;
    tracing::info!("the agent stops; pods keep what they have");
    stop.send_replace(true);
    let drained = async { tokio::join!(grpc, calls, watcher) };
    if tokio::time::timeout(DRAIN_TIMEOUT, drained).await.is_err() {
        tracing::warn!("calls were still being served; the next agent undoes what they leave");
    }
    Ok(())
}

fn open_engine(args: &AgentArgs, switch_socket: &Path) -> anyhow::Result<Engine> {
    let datapath =
        GrpcSwitch::new(uds::channel(switch_socket), switch_socket, tokio::runtime::Handle::current());
    let rim = Rim {
        kernel: Arc::new(linux::Linux),
        datapath: Arc::new(datapath),
        delegate: Arc::new(delegate::Executed),
    };
    let layout = Layout { vhost_dir: args.run_dir.join("vhost"), kubelet_dir: args.kubelet_dir.clone() };
    let state_file = args.state_dir.join("agent.redb");
    explaining_panics(&state_file, || Ok(Engine::open(&state_file, layout, rim)?))
}

/// The database asserts on some damage that it could report; where panics abort, this is the last chance to say what to do.
fn explaining_panics<T>(state_file: &Path, open: impl FnOnce() -> T) -> T {
    let file = state_file.to_owned();
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = file.display();
        tracing::error!(%panic, "{file} is damaged: restore it from a backup, or move it away and restart the node's pods");
    }));
    let opened = open();
    std::panic::set_hook(usual);
    opened
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn make_dir(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("make the directory {}", path.display()))
}

/// Keeps switch, networks file and attachments as they are to be.
async fn watch_all(engine: Arc<Engine>, mut networks: NetworksFile, mut stopped: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut away = false;
    for tick in 0u32.. {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stopped.wait_for(|stop| *stop) => return,
        }
        if let Some(defined) = networks.changed() {
            match engine.set_networks(&defined) {
                Ok(()) => tracing::info!(networks = defined.names().count(), "the networks file changed"),
                Err(error) => networks.retry(&error),
            }
        }
        if tick % CONVERGE_EVERY == CONVERGE_EVERY - 1 {
            blocking(&engine, converge).await;
        }
        let error = blocking(&engine, Engine::watch).await.and_then(Result::err);
        if let Some(error) = error.as_ref().filter(|_| !away) {
            tracing::warn!(%error, "ADD is refused until it answers");
        }
        away = error.is_some();
    }
}

fn converge(engine: &Engine) {
    for (attachment, error) in engine.converge() {
        tracing::warn!(%attachment, %error, "left half-made; it is tried again");
    }
}

/// Runs a step of the engine where it may block; `None` if it panicked (which is logged by the panic itself).
async fn blocking<T: Send + 'static>(engine: &Arc<Engine>, step: fn(&Engine) -> T) -> Option<T> {
    let engine = Arc::clone(engine);
    tokio::task::spawn_blocking(move || step(&engine)).await.ok()
}

async fn told_to_stop(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is as good as told.
    let _ = stopped.wait_for(|stop| *stop).await;
}

async fn signalled() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
