//! A directory in this process, over connections in memory: slow, silent or away at will.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use postern_directory::directory_server::{Directory as Service, DirectoryServer};
use postern_directory::{
    Event, GetRequest, GetResponse, HEARTBEAT, Heartbeat, ReportCallsRequest, ReportCallsResponse,
    ReportDenialsRequest, ReportDenialsResponse, Reset, Revocations, RevokeRequest, RevokeResponse,
    Status as State, Tenant, WatchRequest, WatchRevocationsRequest, Workspace, event, get_request,
    get_response,
};
use tokio::io::DuplexStream;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::{BroadcastStream, IntervalStream, UnboundedReceiverStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::super::Address;

/// What a test does to its directory.
pub(super) struct Fake {
    entries: Mutex<(u64, HashMap<String, get_response::Entry>)>,
    events: broadcast::Sender<Event>,
    pub(super) gets: AtomicUsize,
    /// How long an answer takes after it was read.
    pub(super) slow: Mutex<Duration>,
    away: AtomicBool,
    /// Ends the copying of the connections there are.
    wire: Mutex<CancellationToken>,
    pub(super) reported: Mutex<Vec<ReportDenialsRequest>>,
}

impl Fake {
    /// Serves; must be called within a runtime.
    pub(super) fn serve() -> (Arc<Self>, Address) {
        let fake = Arc::new(Self {
            entries: Mutex::new((1, HashMap::new())),
            events: broadcast::channel(64).0,
            gets: AtomicUsize::new(0),
            slow: Mutex::default(),
            away: AtomicBool::new(false),
            wire: Mutex::default(),
            reported: Mutex::default(),
        });
        let (address, mut arriving) = mpsc::unbounded_channel::<DuplexStream>();
        let (served, incoming) = mpsc::unbounded_channel();
        let incoming = UnboundedReceiverStream::new(incoming).map(Ok::<_, std::io::Error>);
        let service = DirectoryServer::from_arc(Arc::clone(&fake));
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(incoming));
        let switchboard = Arc::clone(&fake);
        tokio::spawn(async move {
            while let Some(mut theirs) = arriving.recv().await {
                if switchboard.away.load(Ordering::SeqCst) {
                    // Dropped: the connection is refused.
                    continue;
                }
                let (mut near, far) = tokio::io::duplex(64 << 10);
                let _ = served.send(far);
                let wire = switchboard.wire.lock().unwrap().clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut theirs, &mut near) => {}
                        // Open at both ends, and nothing arrives any more.
                        () = wire.cancelled() => std::future::pending().await,
                    }
                });
            }
        });
        (fake, Address::Memory(address))
    }

    /// From now on nothing arrives over the connections that there are.
    pub(super) fn swallow(&self) {
        let before = std::mem::take(&mut *self.wire.lock().unwrap());
        before.cancel();
    }

    /// Nobody answers any more, by these connections or others.
    pub(super) fn leave(&self) {
        self.away.store(true, Ordering::SeqCst);
        self.swallow();
    }

    pub(super) fn come_back(&self) {
        self.away.store(false, Ordering::SeqCst);
    }

    pub(super) fn tenant(&self, id: &str, status: State) {
        let entry = get_response::Entry::Tenant(Tenant {
            id: id.to_owned(),
            status: status.into(),
            ..Tenant::default()
        });
        self.change(id, entry);
        self.tell(event::Kind::TenantChanged(id.to_owned()));
    }

    pub(super) fn workspace(&self, id: &str) {
        let entry = get_response::Entry::Workspace(Workspace {
            id: id.to_owned(),
            status: State::Active.into(),
            ..Workspace::default()
        });
        self.change(id, entry);
        self.tell(event::Kind::WorkspaceChanged(id.to_owned()));
    }

    /// A change of which nobody is told.
    pub(super) fn tenant_unheard(&self, id: &str, status: State) {
        let entry = get_response::Entry::Tenant(Tenant {
            id: id.to_owned(),
            status: status.into(),
            ..Tenant::default()
        });
        self.change(id, entry);
    }

    /// Tells of the newest change, which was this id's.
    pub(super) fn tell_late(&self, id: &str) {
        self.tell(event::Kind::TenantChanged(id.to_owned()));
    }

    pub(super) fn reset(&self) {
        self.entries.lock().unwrap().0 += 1;
        self.tell(event::Kind::Reset(Reset {}));
    }

    pub(super) fn asked(&self) -> usize {
        self.gets.load(Ordering::SeqCst)
    }

    fn change(&self, id: &str, entry: get_response::Entry) {
        let mut entries = self.entries.lock().unwrap();
        entries.0 += 1;
        entries.1.insert(id.to_owned(), entry);
    }

    fn tell(&self, kind: event::Kind) {
        let revision = self.entries.lock().unwrap().0;
        // Without watchers nobody hears it.
        let _ = self.events.send(Event {
            revision,
            kind: Some(kind),
        });
    }
}

type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Service for Fake {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let id = match request.into_inner().key {
            Some(get_request::Key::TenantId(id) | get_request::Key::WorkspaceId(id)) => id,
            None => return Err(Status::invalid_argument("no key")),
        };
        let (revision, entry) = {
            let entries = self.entries.lock().unwrap();
            (entries.0, entries.1.get(&id).cloned())
        };
        let slow = *self.slow.lock().unwrap();
        tokio::time::sleep(slow).await;
        Ok(Response::new(GetResponse { revision, entry }))
    }

    type WatchStream = Told<Event>;

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Told<Event>>, Status> {
        let changes = BroadcastStream::new(self.events.subscribe());
        let changes =
            changes.map(|event| event.map_err(|error| Status::internal(error.to_string())));
        // As it was when the heartbeat was due: a change that nobody was told is a gap.
        let revision = self.entries.lock().unwrap().0;
        let told = Arc::new(Mutex::new(revision));
        let newest = Arc::clone(&told);
        let changes = changes.inspect(move |event| {
            if let Ok(event) = event {
                *newest.lock().unwrap() = event.revision;
            }
        });
        let beats = IntervalStream::new(tokio::time::interval(HEARTBEAT)).map(move |_| {
            Ok(Event {
                revision: *told.lock().unwrap(),
                kind: Some(event::Kind::Heartbeat(Heartbeat {})),
            })
        });
        Ok(Response::new(Box::pin(futures::stream::select(
            changes, beats,
        ))))
    }

    type WatchRevocationsStream = Told<Revocations>;

    async fn watch_revocations(
        &self,
        _: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Told<Revocations>>, Status> {
        Err(Status::unimplemented("no test here asks"))
    }

    async fn revoke(&self, _: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        Err(Status::unimplemented("no test here asks"))
    }

    async fn report_calls(
        &self,
        _: Request<ReportCallsRequest>,
    ) -> Result<Response<ReportCallsResponse>, Status> {
        Ok(Response::new(ReportCallsResponse::default()))
    }

    async fn report_denials(
        &self,
        request: Request<ReportDenialsRequest>,
    ) -> Result<Response<ReportDenialsResponse>, Status> {
        self.reported.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ReportDenialsResponse {}))
    }
}
