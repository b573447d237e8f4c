//! Who gets a connection of a node's socket, and what happens to a path that is in use.
#![cfg(feature = "grpc")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use local_api::agent_v1::agent_client::AgentClient;
use local_api::agent_v1::{StatusRequest, StatusResponse};
use local_api::uds::{ListenError, Listener, channel};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn socket() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.sock");
    (dir, path)
}

#[tokio::test]
async fn bind_when_path_is_free_listens_for_its_owner_only_and_cleans_up() {
    let (_dir, path) = socket();
    let mut listener = Listener::bind(&path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut client = UnixStream::connect(&path).await.unwrap();
    let mut served = listener.accept().await;
    served.write_all(b"hello").await.unwrap();
    drop(served);
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert_eq!(said, "hello");
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn bind_when_another_process_serves_the_path_is_refused() {
    let (_dir, path) = socket();
    let _first = Listener::bind(&path).unwrap();
    assert!(matches!(Listener::bind(&path), Err(ListenError::Busy(_))));
}

#[tokio::test]
async fn bind_when_a_dead_process_left_its_socket_replaces_it() {
    let (_dir, path) = socket();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    Listener::bind(&path).unwrap();
}

#[tokio::test]
async fn bind_when_the_path_is_a_file_or_nowhere_leaves_it_alone() {
    let (dir, path) = socket();
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(Listener::bind(&path), Err(ListenError::NotASocket(_))));
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    assert!(matches!(Listener::bind(&dir.path().join("no/such.sock")), Err(ListenError::Io { .. })));
}

struct Fixed;

#[tonic::async_trait]
impl local_api::agent_v1::agent_server::Agent for Fixed {
    async fn list_networks(
        &self,
        _: tonic::Request<local_api::agent_v1::ListNetworksRequest>,
    ) -> Result<tonic::Response<local_api::agent_v1::ListNetworksResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not asked"))
    }

    async fn list_nodes(
        &self,
        _: tonic::Request<local_api::agent_v1::ListNodesRequest>,
    ) -> Result<tonic::Response<local_api::agent_v1::ListNodesResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not asked"))
    }

    async fn list_attachments(
        &self,
        _: tonic::Request<local_api::agent_v1::ListAttachmentsRequest>,
    ) -> Result<tonic::Response<local_api::agent_v1::ListAttachmentsResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not asked"))
    }

    async fn status(
        &self,
        _: tonic::Request<StatusRequest>,
    ) -> Result<tonic::Response<StatusResponse>, tonic::Status> {
        Ok(tonic::Response::new(StatusResponse { pid: 7, ..StatusResponse::default() }))
    }
}

async fn serve(path: &Path) -> (tokio::sync::oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
    let listener = Listener::bind(path).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tonic::transport::Server::builder()
        .add_service(local_api::agent_v1::agent_server::AgentServer::new(Fixed))
        .serve_with_incoming_shutdown(listener, async { drop(stopped.await) });
    (stop, tokio::spawn(async { server.await.unwrap() }))
}

#[tokio::test]
async fn channel_when_the_service_comes_goes_and_comes_again_needs_no_renewal() {
    let (_dir, path) = socket();
    let mut client = AgentClient::new(channel(&path));
    let status = client.status(StatusRequest {}).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "nobody is there yet");
    for _ in 0..2 {
        let (stop, server) = serve(&path).await;
        assert_eq!(client.status(StatusRequest {}).await.unwrap().into_inner().pid, 7);
        stop.send(()).unwrap();
        server.await.unwrap();
        assert!(client.status(StatusRequest {}).await.is_err());
    }
}
