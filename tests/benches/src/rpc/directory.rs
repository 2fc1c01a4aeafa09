//! A directory with one tenant and one workspace, both active, that never change.

use std::path::Path;
use std::pin::Pin;

use anyhow::{Context as _, Result};
use postern_directory::directory_server::{Directory, DirectoryServer};
use postern_directory::{
    Event, GetRequest, GetResponse, HEARTBEAT, Heartbeat, ReportCallsRequest, ReportCallsResponse,
    ReportDenialsRequest, ReportDenialsResponse, Revocations, RevokeRequest, RevokeResponse,
    Status, Tenant, WatchRequest, WatchRevocationsRequest, Workspace, event, get_request,
    get_response,
};
use tokio::net::UnixListener;
use tokio_stream::wrappers::{IntervalStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response};

struct Fixed {
    tenant: Tenant,
    workspace: Workspace,
}

const REVISION: u64 = 1;

type Told<T> = Pin<Box<dyn Stream<Item = Result<T, tonic::Status>> + Send>>;

#[tonic::async_trait]
impl Directory for Fixed {
    async fn get(
        &self,
        request: Request<GetRequest>,
    ) -> Result<Response<GetResponse>, tonic::Status> {
        let entry = match request.into_inner().key {
            Some(get_request::Key::TenantId(id)) if id == self.tenant.id => {
                Some(get_response::Entry::Tenant(self.tenant.clone()))
            }
            Some(get_request::Key::WorkspaceId(id)) if id == self.workspace.id => {
                Some(get_response::Entry::Workspace(self.workspace.clone()))
            }
            _ => None,
        };
        Ok(Response::new(GetResponse {
            revision: REVISION,
            entry,
        }))
    }

    type WatchStream = Told<Event>;

    async fn watch(
        &self,
        _: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, tonic::Status> {
        let beat = || Event {
            revision: REVISION,
            kind: Some(event::Kind::Heartbeat(Heartbeat {})),
        };
        let beats = IntervalStream::new(tokio::time::interval(HEARTBEAT));
        Ok(Response::new(Box::pin(beats.map(move |_| Ok(beat())))))
    }

    type WatchRevocationsStream = Told<Revocations>;

    async fn watch_revocations(
        &self,
        _: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, tonic::Status> {
        let none = || Revocations {
            revocations: Vec::new(),
            complete: true,
        };
        let beats = IntervalStream::new(tokio::time::interval(HEARTBEAT));
        Ok(Response::new(Box::pin(beats.map(move |_| Ok(none())))))
    }

    async fn revoke(
        &self,
        _: Request<RevokeRequest>,
    ) -> Result<Response<RevokeResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("nothing changes here"))
    }

    async fn report_calls(
        &self,
        _: Request<ReportCallsRequest>,
    ) -> Result<Response<ReportCallsResponse>, tonic::Status> {
        Ok(Response::new(ReportCallsResponse::default()))
    }

    async fn report_denials(
        &self,
        _: Request<ReportDenialsRequest>,
    ) -> Result<Response<ReportDenialsResponse>, tonic::Status> {
        Ok(Response::new(ReportDenialsResponse {}))
    }
}

/// Serves on a Unix socket, from a thread of its own, once this returns.
pub(crate) fn serve(socket: &Path, tenant: &str, workspace: &str) -> Result<()> {
    let capabilities = ["postgres", "mongo", "kafka", "functions", "storage"].map(String::from);
    let fixed = Fixed {
        tenant: Tenant {
            id: tenant.to_owned(),
            status: Status::Active.into(),
            plan: "growth".to_owned(),
            plan_capabilities: vec!["identity".to_owned()],
            slug: "bench".to_owned(),
        },
        workspace: Workspace {
            id: workspace.to_owned(),
            tenant_id: tenant.to_owned(),
            status: Status::Active.into(),
            capabilities: capabilities.into(),
        },
    };
    let listener = std::os::unix::net::UnixListener::bind(socket)
        .with_context(|| socket.display().to_string())?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    std::thread::spawn(move || {
        let served: Result<()> = runtime.block_on(async {
            let connections = UnixListenerStream::new(UnixListener::from_std(listener)?);
            let server =
                tonic::transport::Server::builder().add_service(DirectoryServer::new(fixed));
            Ok(server.serve_with_incoming(connections).await?)
        });
        if let Err(error) = served {
            eprintln!("the directory ended: {error:#}");
        }
    });
    Ok(())
}
