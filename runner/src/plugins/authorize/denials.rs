//! Denials for the audit trail: noted while a request is refused, reported beside it.
//!
//! Nothing waits for a report. When more come than can be reported, the newest are
//! dropped and their number is reported instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postern_contract::Match;
use postern_directory::{Denial, ReportDenialsRequest};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Denied;
use super::directory::{Directory, is_final};
use crate::{Reply, Request};

/// Denials that may wait to be reported.
const QUEUE: usize = 1_024;
/// Denials of one report.
const BATCH: usize = 100;
/// How long a report may take.
const REPORT: Duration = Duration::from_secs(2);
/// After a report that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Where denials are noted.
#[derive(Default)]
pub(super) struct Denials {
    queue: Option<mpsc::Sender<Denial>>,
    dropped: Arc<AtomicU64>,
}

/// Where they are read.
pub(super) struct Noted {
    queue: mpsc::Receiver<Denial>,
    dropped: Arc<AtomicU64>,
}

impl Denials {
    /// From now on denials are kept for the reader.
    pub(super) fn open(&mut self) -> Noted {
        let (sender, queue) = mpsc::channel(QUEUE);
        self.queue = Some(sender);
        Noted {
            queue,
            dropped: Arc::clone(&self.dropped),
        }
    }

    pub(super) fn note(&self, request: &Request<'_>, reply: &Reply, denied: Denied) {
        self.push(|| denial(request, reply, denied));
    }

    /// Keeps a denial while there is room.
    pub(super) fn push(&self, denial: impl FnOnce() -> Denial) {
        let Some(queue) = &self.queue else { return };
        let Ok(place) = queue.try_reserve() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            metrics::counter!("postern_denials_dropped_total").increment(1);
            return;
        };
        place.send(denial());
    }
}

fn denial(request: &Request<'_>, reply: &Reply, denied: Denied) -> Denial {
    let facts = &request.facts;
    let who = facts.identity.as_deref();
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Denial {
        at_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        correlation_id: facts
            .correlation_id
            .as_deref()
            .unwrap_or_default()
            .to_owned(),
        route: match request.route() {
            Ok(Match::Found(route, _)) => route.id.clone(),
            _ => String::new(),
        },
        code: reply
            .code()
            .map(|code| code.as_str().to_owned())
            .unwrap_or_default(),
        subject: who.map(|who| who.subject.clone()).unwrap_or_default(),
        tenant_id: who
            .filter(|_| denied.to_tenant)
            .and_then(|who| who.tenant.clone())
            .unwrap_or_default(),
        client_address: request
            .src_ip()
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
        resource: denied.resource.unwrap_or_default(),
    }
}

/// Reports what is noted, batch by batch, until the process ends; then what is left. A
/// process that ends has a bound of its own.
pub(super) async fn report(directory: Arc<Directory>, mut noted: Noted, stop: CancellationToken) {
    let mut batch = Vec::new();
    loop {
        let reading = noted.queue.recv_many(&mut batch, BATCH);
        if stop.run_until_cancelled(reading).await.is_none() {
            break;
        }
        send(&directory, &noted.dropped, &mut batch).await;
    }
    noted.queue.close();
    while noted.queue.recv_many(&mut batch, BATCH).await > 0 {
        send(&directory, &noted.dropped, &mut batch).await;
    }
}

/// Reports until it arrives. Meanwhile further ones wait, as many as there is room for.
async fn send(directory: &Directory, dropped: &AtomicU64, batch: &mut Vec<Denial>) {
    let lost = dropped.swap(0, Ordering::Relaxed);
    let report = ReportDenialsRequest {
        denials: std::mem::take(batch),
        dropped: lost,
    };
    loop {
        match timeout(REPORT, directory.client().report_denials(report.clone())).await {
            Ok(Ok(_)) => return,
            Ok(Err(status)) if is_final(status.code()) => {
                tracing::error!(%status, "denials were refused and are not in the audit trail");
                return;
            }
            _ => sleep(RETRY).await,
        }
    }
}
