//! Revoked tokens: one function to revoke, from which every runner hears within a second.
//!
//! The row is told to runners over the directory ([`crate::directory`]) as soon as it
//! is committed; they drop what they remember of such tokens and refuse them from then on.

use std::time::Duration;

use postern_common::time::Time;
use sqlx::PgPool;

use crate::store::revocations as store;

/// Which tokens of an issuer are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revoked<'r> {
    /// The one with this `jti`.
    Token(&'r str),
    /// All of this session (`sid`), whenever they were issued.
    Session(&'r str),
    /// Those of this subject (`sub`) that were issued up to now, in whole seconds: the
    /// subject may log in again.
    Subject(&'r str),
}

impl<'r> Revoked<'r> {
    /// The claim and its value.
    pub(crate) fn claim(self) -> (&'static str, &'r str) {
        match self {
            Self::Token(jti) => ("jti", jti),
            Self::Session(sid) => ("sid", sid),
            Self::Subject(sub) => ("sub", sub),
        }
    }
}

/// Longer than tokens live anywhere; a revocation is not kept for longer.
pub const MAX_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);
/// Bytes of an issuer's name.
const MAX_ISSUER: usize = 2048;
/// Bytes of a claim.
const MAX_VALUE: usize = 512;

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// No token can have this issuer or claim: empty or too long.
    #[error("{0} must be 1 to {1} bytes long")]
    Length(&'static str, usize),
    /// The database does not answer.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Refuses tokens of `issuer` from now on: `Ok` once it is committed, so it holds
/// whatever happens next. To repeat it is harmless.
///
/// `until` is when the last token that is meant expires: the token's `exp`, or for a
/// session or subject the time plus the longest life of an access token; cut to
/// [`MAX_KEPT`] from now. Only for claims of a token whose signature was checked: who
/// can revoke what they cannot prove to hold can lock others out.
///
/// # Errors
/// A claim that no token can have, or the database.
pub async fn revoke(
    pool: &PgPool,
    issuer: &str,
    revoked: Revoked<'_>,
    until: jiff::Timestamp,
) -> Result<(), RevokeError> {
    let (claim, value) = revoked.claim();
    for (name, text, most) in [("iss", issuer, MAX_ISSUER), (claim, value, MAX_VALUE)] {
        if text.is_empty() || text.len() > most || text.contains('\0') {
            return Err(RevokeError::Length(name, most));
        }
    }
    let latest = jiff::Timestamp::now()
        .checked_add(MAX_KEPT)
        .unwrap_or(jiff::Timestamp::MAX);
    store::insert(pool, issuer, claim, value, Time(until.min(latest))).await?;
    metrics::counter!("postern_revocations_total", "claim" => claim).increment(1);
    Ok(())
}
