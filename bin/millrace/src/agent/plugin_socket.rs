//! How do calls of `millrace-cni` arrive? One connection, one request, one answer.

use std::sync::Arc;
use std::time::Duration;

use local_api::cni::{Answer, FrameError, HEADER_BYTES, Request, payload_len};
use local_api::uds::Listener;
use reconcile::Engine;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::{Semaphore, watch};

use super::cni;

/// How long a plugin may take to send its request and to read the answer: it does nothing else.
const PEER_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls served at a time; more wait. Each holds a thread and at most one request.
const MAX_CALLS: u32 = 128;

/// Serves calls until told to stop, then waits for those that are being served.
pub(crate) async fn serve(mut listener: Listener, engine: Arc<Engine>, mut stopped: watch::Receiver<bool>) {
    let calls = Arc::new(Semaphore::new(MAX_CALLS as usize));
    loop {
        let Ok(permit) = Arc::clone(&calls).acquire_owned().await else { return };
        let stream = tokio::select! {
            stream = listener.accept() => stream,
            _ = stopped.wait_for(|stop| *stop) => break,
        };
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            if let Err(error) = serve_one(stream, engine).await {
                tracing::warn!(%error, "a call of the CNI plugin was not answered");
            }
            drop(permit);
        });
    }
    // All permits are back when nothing is served any more; the one of the loop itself was dropped by leaving it.
    let _ = calls.acquire_many(MAX_CALLS).await;
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the plugin took longer than {PEER_TIMEOUT:?}")]
    Slow(#[from] tokio::time::error::Elapsed),
    #[error(transparent)]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("serving it failed: {0}")]
    Served(#[from] tokio::task::JoinError),
}

async fn serve_one(mut stream: UnixStream, engine: Arc<Engine>) -> Result<(), CallError> {
    let Some(payload) = tokio::time::timeout(PEER_TIMEOUT, read_payload(&mut stream)).await?? else {
        return Ok(());
    };
    let request = Request::decode(&payload)?;
    // Once begun, a call is served to its end even if the plugin goes away: the runtime's next call finds it whole.
    let answer: Answer = tokio::task::spawn_blocking(move || cni::serve(&engine, &request)).await?;
    tokio::time::timeout(PEER_TIMEOUT, stream.write_all(&answer.encode())).await??;
    Ok(())
}

/// `None` if the peer only looked whether somebody answers.
async fn read_payload(stream: &mut UnixStream) -> Result<Option<Vec<u8>>, CallError> {
    let mut header = [0; HEADER_BYTES];
    if stream.read(&mut header[..1]).await? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[1..]).await?;
    let mut payload = vec![0; payload_len(header)?];
    stream.read_exact(&mut payload).await?;
    Ok(Some(payload))
}
