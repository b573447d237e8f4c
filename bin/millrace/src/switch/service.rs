//! What does the switch answer on its socket? Each call is one question to the board, on a thread that may block.

use std::sync::Arc;

use local_api::switch_v1 as api;
use tonic::{Request, Response, Status};
use vswitch::Entrance;

use super::board::Board;
use super::convert;

/// Flow entries per worker in one answer, unless the question says how many.
const DEFAULT_FLOWS: usize = 1000;
/// The longest frame that can be traced: an IP packet of 64 KiB with two VLAN tags.
const MAX_TRACED_BYTES: usize = 65_535 + 22;

/// The switch's gRPC service.
pub(super) struct Service(Arc<Board>);

type Answer<T> = Result<Response<T>, Status>;

impl Service {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self(board)
    }

    /// Puts `question` to the board: the datapath answers after a turn of its slowest worker.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Board) -> T + Send + 'static,
    ) -> Result<T, Status> {
        let board = self.0.clone();
        let answer = tokio::task::spawn_blocking(move || question(&board)).await;
        answer.map_err(|error| Status::internal(format!("the switch failed to answer: {error}")))
    }
}

#[tonic::async_trait]
impl api::switch_server::Switch for Service {
    async fn apply(&self, request: Request<api::ApplyRequest>) -> Answer<api::ApplyResponse> {
        let request = request.into_inner();
        Ok(Response::new(self.ask(move |board| board.apply(&request)).await?))
    }

    async fn list_networks(&self, _: Request<api::ListNetworksRequest>) -> Answer<api::ListNetworksResponse> {
        Ok(Response::new(self.ask(Board::networks).await?))
    }

    async fn list_ports(&self, _: Request<api::ListPortsRequest>) -> Answer<api::ListPortsResponse> {
        Ok(Response::new(self.ask(Board::ports).await?))
    }

    async fn list_workers(&self, _: Request<api::ListWorkersRequest>) -> Answer<api::ListWorkersResponse> {
        let workers = self.ask(|board| board.datapath.workers()).await?;
        let workers = workers.iter().map(convert::worker).collect();
        Ok(Response::new(api::ListWorkersResponse { workers }))
    }

    async fn list_flows(&self, request: Request<api::ListFlowsRequest>) -> Answer<api::ListFlowsResponse> {
        let limit = match request.into_inner().limit {
            0 => DEFAULT_FLOWS,
            limit => limit as usize,
        };
        let dump = self.ask(move |board| board.datapath.flows(limit)).await?;
        let flow = |(worker, view): (usize, vswitch::FlowView)| api::Flow {
            worker: worker as u32,
            r#match: view.matches,
            actions: view.actions,
            frames: view.frames,
            bytes: view.bytes,
            idle_ms: view.idle_ms,
        };
        let total = dump.total as u64;
        let flows = dump.flows.into_iter().map(flow).take(limit).collect();
        Ok(Response::new(api::ListFlowsResponse { flows, total }))
    }

    async fn list_stations(&self, _: Request<api::ListStationsRequest>) -> Answer<api::ListStationsResponse> {
        let stations = self.ask(|board| board.datapath.stations()).await?;
        let stations = stations.iter().map(convert::station).collect();
        Ok(Response::new(api::ListStationsResponse { stations }))
    }

    async fn trace(&self, request: Request<api::TraceRequest>) -> Answer<api::TraceResponse> {
        let api::TraceRequest { port, frame, by_uplink } = request.into_inner();
        let port = convert::port_no(port).map_err(Status::invalid_argument)?;
        if frame.len() > MAX_TRACED_BYTES {
            let bytes = frame.len();
            return Err(Status::invalid_argument(format!(
                "the frame has {bytes} bytes, more than the {MAX_TRACED_BYTES} that can be traced"
            )));
        }
        if by_uplink {
            let told = self.ask(move |board| board.trace(Entrance::Uplink, &frame)).await?;
            let told = told.ok_or_else(|| Status::not_found("no uplink leads to other nodes"))?;
            return Ok(Response::new(told));
        }
        let told = self.ask(move |board| {
            board.datapath.link(port)?;
            board.trace(Entrance::Port(port), &frame)
        });
        let told =
            told.await?.ok_or_else(|| Status::not_found(format!("no port has the number {}", port.0)))?;
        Ok(Response::new(told))
    }

    async fn info(&self, _: Request<api::InfoRequest>) -> Answer<api::InfoResponse> {
        Ok(Response::new(api::InfoResponse {
            version: env!("CARGO_PKG_VERSION").into(),
            instance: self.0.instance.clone(),
            program_version: self.ask(Board::version).await?,
            pid: std::process::id(),
        }))
    }
}
