//! The directory's stream of revocations: all that count, then each new one.
//!
//! Until all have come no token is taken, as one of them could be revoked. A stream that
//! breaks or is silent for a second is opened anew; what was heard stays true, and is
//! relied on for `revocations.maxStalenessSeconds`.

use std::sync::Arc;
use std::time::Duration;

use postern_directory::{SILENCE, WatchRevocationsRequest};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::revocations::Revocations;
use super::seconds;
use crate::plugins::authorize::Address;

/// Between two attempts, at most.
const MAX_RECONNECT: Duration = Duration::from_secs(1);
/// The same when there are more revocations than there is room for: all of them have to
/// be told again.
const NO_ROOM: Duration = Duration::from_secs(30);
/// How often what is over is forgotten.
const FORGET: Duration = Duration::from_secs(60);

/// Why a stream is over.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("no message in time")]
    Silent,
    #[error("the stream ended")]
    Ended,
    #[error("{}", .0.message())]
    Status(#[from] tonic::Status),
    #[error("there are more revocations than are kept here; no token is taken")]
    NoRoom,
}

/// Follows the directory until `stop`.
pub(super) async fn follow(
    revocations: Arc<Revocations>,
    directory: Address,
    max_staleness: Duration,
    stop: CancellationToken,
) {
    let work = async {
        let mut pause = Duration::ZERO;
        let mut heard = Instant::now();
        loop {
            let before = heard;
            let broken = listen(&revocations, &directory, &mut heard).await;
            let no_room = matches!(broken, Broken::NoRoom);
            if heard != before || no_room {
                tracing::warn!(reason = %broken, "revocations are no longer followed; reconnecting");
                pause = Duration::ZERO;
            }
            // An attempt takes a second at most, so this is looked at often enough.
            if revocations.is_known() && (no_room || heard.elapsed() > max_staleness) {
                tracing::error!("revocations are not known well enough; no token is taken");
                revocations.rely(false);
            }
            sleep(if no_room { NO_ROOM } else { pause }).await;
            pause = (pause * 2).clamp(Duration::from_millis(50), MAX_RECONNECT);
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Listens on one stream until it breaks; `heard`: when all that counts was known last.
async fn listen(revocations: &Revocations, directory: &Address, heard: &mut Instant) -> Broken {
    // A new connection each time: the old one may be dead without knowing it.
    let mut client = directory.client();
    let mut told = match timeout(
        SILENCE,
        client.watch_revocations(WatchRevocationsRequest {}),
    )
    .await
    {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) => return status.into(),
        Err(_) => return Broken::Silent,
    };
    let mut forgot = Instant::now();
    loop {
        let message = match timeout(SILENCE, told.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Broken::Ended,
            Ok(Err(status)) => return status.into(),
            Err(_) => return Broken::Silent,
        };
        if !revocations.revoke(&message.revocations) {
            return Broken::NoRoom;
        }
        if message.complete {
            *heard = Instant::now();
            if !revocations.is_known() {
                revocations.rely(true);
            }
        }
        if forgot.elapsed() > FORGET {
            forgot = Instant::now();
            revocations.forget(seconds());
        }
    }
}
