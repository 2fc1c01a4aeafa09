//! Revoked tokens as a runner hears of them: all that count, then each new one.

use std::sync::Arc;

use futures::stream::{self, Stream, StreamExt as _};
use postern_directory::{Revocation, Revocations, revocation::Tokens};
use sqlx::PgPool;
use tonic::Status;

use super::{Feed, away};
use crate::revocation::{RevokeError, Revoked, revoke};
use crate::store::revocations as store;

/// Revocations in one message.
const BATCH: i64 = 1000;

/// Those committed after a revision, a message full at most.
pub(super) async fn after(
    pool: &PgPool,
    revision: i64,
) -> Result<Vec<store::Revocation>, sqlx::Error> {
    store::after(pool, revision, BATCH).await
}

pub(super) fn told(revocations: &[store::Revocation], complete: bool) -> Revocations {
    Revocations {
        revocations: revocations.iter().filter_map(message).collect(),
        complete,
    }
}

fn message(row: &store::Revocation) -> Option<Revocation> {
    let tokens = match row.claim.as_str() {
        "jti" => Tokens::Jti(row.value.clone()),
        "sid" => Tokens::Sid(row.value.clone()),
        "sub" => Tokens::Sub(row.value.clone()),
        // Not let in by the table.
        _ => return None,
    };
    let seconds = |time: jiff::Timestamp| u64::try_from(time.as_second()).unwrap_or_default();
    Some(Revocation {
        issuer: row.issuer.clone(),
        tokens: Some(tokens),
        revoked_at: seconds(row.revoked_at.0),
        expires_at: seconds(row.expires_at.0),
    })
}

/// All that count, a message at a time as the runner takes them, then what the feed
/// tells. A runner too slow for the feed's buffer is cut off and starts over.
pub(super) fn watch(
    pool: PgPool,
    feed: &Arc<Feed>,
) -> Result<impl Stream<Item = Result<Revocations, Status>> + Send + use<>, Status> {
    // Subscribed before the first is read: what is committed in between is told twice.
    let news = feed
        .watch_revocations()
        .ok_or_else(|| Status::unavailable("the database does not answer"))?;
    let known = stream::try_unfold(Some(0), move |last| {
        let pool = pool.clone();
        async move {
            let Some(last) = last else { return Ok(None) };
            let batch = after(&pool, last).await.map_err(away)?;
            let next = batch.last().map(|revocation| revocation.revision);
            Ok(Some((told(&batch, next.is_none()), next)))
        }
    });
    let news = stream::unfold(Some(news), |news| async {
        let mut news = news?;
        match news.recv().await {
            Ok(told) => Some((Ok(told), Some(news))),
            Err(_) => Some((Err(Status::unavailable("start over")), None)),
        }
    });
    Ok(known.chain(news))
}

/// Revokes what an operator told a runner.
pub(super) async fn take(pool: &PgPool, revocation: Option<Revocation>) -> Result<(), Status> {
    let revocation = revocation.ok_or_else(|| Status::invalid_argument("no revocation"))?;
    let revoked = match &revocation.tokens {
        Some(Tokens::Jti(jti)) => Revoked::Token(jti),
        Some(Tokens::Sid(sid)) => Revoked::Session(sid),
        Some(Tokens::Sub(sub)) => Revoked::Subject(sub),
        None => return Err(Status::invalid_argument("none of jti, sid, sub")),
    };
    let until = i64::try_from(revocation.expires_at)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .unwrap_or(jiff::Timestamp::MAX);
    let done = revoke(pool, &revocation.issuer, revoked, until).await;
    done.map_err(|error| match error {
        RevokeError::Length(..) => Status::invalid_argument(error.to_string()),
        RevokeError::Database(error) => away(error),
    })
}
