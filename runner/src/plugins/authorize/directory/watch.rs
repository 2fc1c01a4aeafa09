//! Following the watch: what it tells is what the cache may be trusted for.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use postern_directory::directory_client::DirectoryClient;
use postern_directory::event::Kind;
use postern_directory::{Event, SILENCE, WatchRequest};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::Directory;

/// Between two attempts to watch: at first none, then at least and at most.
const MIN_RECONNECT: Duration = Duration::from_millis(50);
const MAX_RECONNECT: Duration = Duration::from_secs(1);

impl Directory {
    /// Watches for changes for as long as the process lives.
    pub(in super::super) async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let work = async {
            let mut pause = Duration::ZERO;
            let mut told = false;
            loop {
                let reason = self.follow(self.client()).await;
                // A new connection each time, and for whoever asks too: the old one may be
                // dead without knowing it. Only then is nothing trusted any more, so
                // that everybody asks again over the new one.
                self.connection.send_replace(self.address.client());
                if self.lost() {
                    told = false;
                    tracing::warn!(reason, "the directory is no longer watched; reconnecting");
                    pause = Duration::ZERO;
                } else if !std::mem::replace(&mut told, true) {
                    tracing::warn!(reason, "the directory cannot be watched; trying again");
                }
                sleep(pause).await;
                pause = (pause * 2).clamp(MIN_RECONNECT, MAX_RECONNECT);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = work => {}
        }
    }

    /// Follows one watch until it breaks, and says why it did.
    async fn follow(&self, mut client: DirectoryClient<Channel>) -> String {
        const SILENT: &str = "no heartbeat in time";
        let mut events = match timeout(SILENCE, client.watch(WatchRequest {})).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return why(&status),
            Err(_) => return SILENT.into(),
        };
        let mut first = true;
        loop {
            match timeout(SILENCE, events.message()).await {
                Ok(Ok(Some(event))) => self.take(event, std::mem::take(&mut first)),
                Ok(Ok(None)) => return "the stream ended".into(),
                Ok(Err(status)) => return why(&status),
                Err(_) => return SILENT.into(),
            }
        }
    }

    fn take(&self, Event { revision, kind }: Event, first: bool) {
        let mut link = self.link();
        let missed_nothing = match &kind {
            Some(Kind::Heartbeat(_)) => link.is_at(revision),
            Some(Kind::TenantChanged(id) | Kind::WorkspaceChanged(id)) => {
                link.changed(id, revision);
                self.drop_older(id, revision);
                // Whoever asks from now on does not wait for an answer from before.
                self.flights.forget(id);
                link.follows(revision)
            }
            // Forget everything; or something that this version does not know.
            Some(Kind::Reset(_)) | None => false,
        };
        if first || !missed_nothing {
            let epoch = link.begin(revision);
            self.flights.forget_all();
            self.live.store(epoch, Ordering::Release);
        }
        link.heard(revision);
    }

    /// The watch broke. Whether it had stood.
    fn lost(&self) -> bool {
        // Held, so that nothing is kept as of a watch that is over.
        let _link = self.link();
        self.live.swap(0, Ordering::AcqRel) != 0
    }
}

/// With its causes: that a certificate was refused is the last one.
fn why(status: &tonic::Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
