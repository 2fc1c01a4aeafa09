//! Revoked tokens, from the row to the runners that watch.

use std::time::Duration;

use postern_directory::revocation::Tokens;
use postern_directory::{Revocation, Revocations, RevokeRequest, SILENCE, WatchRevocationsRequest};
use postern_platform::revocation::{Revoked, revoke};
use tonic::{Code, Streaming};

use crate::directory::client;
use crate::support::{Deployment, Server};

const ISSUER: &str = "https://issuer.example/realms/a";

async fn watch(server: &Server) -> Streaming<Revocations> {
    let mut client = client(server).await;
    let watching = client.watch_revocations(WatchRevocationsRequest {}).await;
    watching.unwrap().into_inner()
}

async fn next(told: &mut Streaming<Revocations>) -> Revocations {
    let next = tokio::time::timeout(SILENCE, told.message()).await;
    next.expect("silence").unwrap().unwrap()
}

/// What counts already.
async fn known(told: &mut Streaming<Revocations>) -> Vec<Revocation> {
    let mut known = Vec::new();
    loop {
        let message = next(told).await;
        known.extend(message.revocations);
        if message.complete {
            return known;
        }
    }
}

/// The next one that is not a heartbeat.
async fn news(told: &mut Streaming<Revocations>) -> Revocation {
    loop {
        if let Some(revocation) = next(told).await.revocations.pop() {
            return revocation;
        }
    }
}

fn in_an_hour() -> jiff::Timestamp {
    jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)
}

#[tokio::test]
async fn every_runner_hears_of_it_whoever_revoked() {
    let deployment = Deployment::new().await;
    let (server, other) = (deployment.serve("a").await, deployment.serve("b").await);
    let mut told = watch(&server).await;
    assert_eq!(known(&mut told).await, []);

    let until = in_an_hour();
    let pool = &deployment.pool;
    revoke(pool, ISSUER, Revoked::Session("s1"), until)
        .await
        .unwrap();
    let heard = tokio::time::timeout(Duration::from_secs(1), news(&mut told)).await;
    let heard = heard.expect("within a second");
    assert_eq!(
        (heard.issuer.as_str(), heard.tokens, heard.expires_at),
        (
            ISSUER,
            Some(Tokens::Sid("s1".into())),
            until.as_second() as u64
        )
    );
    let now = jiff::Timestamp::now().as_second() as u64;
    assert!((now - 10..=now).contains(&heard.revoked_at));

    // By an operator, at a runner that asks another process.
    let revocation = Revocation {
        issuer: ISSUER.into(),
        tokens: Some(Tokens::Sub("u1".into())),
        revoked_at: 0,
        expires_at: u64::MAX,
    };
    let request = RevokeRequest {
        revocation: Some(revocation),
    };
    client(&other).await.revoke(request).await.unwrap();
    let heard = news(&mut told).await;
    assert_eq!(heard.tokens, Some(Tokens::Sub("u1".into())));
    assert!(heard.revoked_at >= now, "the database says when");
    assert!(
        heard.expires_at < now + 31 * 24 * 3600,
        "kept for a bounded time"
    );

    // Who comes later hears of both at once, and of a repetition once.
    revoke(pool, ISSUER, Revoked::Session("s1"), until)
        .await
        .unwrap();
    let mut late = watch(&other).await;
    let tokens: Vec<_> = known(&mut late)
        .await
        .into_iter()
        .filter_map(|r| r.tokens)
        .collect();
    assert_eq!(tokens, [Tokens::Sub("u1".into()), Tokens::Sid("s1".into())]);
}

#[tokio::test]
async fn more_than_a_message_holds_is_told_and_what_expired_is_not() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let pool = &deployment.pool;
    revoke(pool, ISSUER, Revoked::Token("old"), jiff::Timestamp::now())
        .await
        .unwrap();
    sqlx::raw_sql(
        "INSERT INTO postern.revocation (revision, issuer, claim, value, expires_at)
         SELECT n + 1, 'i', 'jti', n::text, now() + interval '1 h' FROM generate_series(1, 2500) n;
         UPDATE postern.directory_revision SET revocation = 2501;",
    )
    .execute(pool)
    .await
    .unwrap();
    let mut told = watch(&server).await;
    assert_eq!(known(&mut told).await.len(), 2500);
    revoke(pool, ISSUER, Revoked::Token("new"), in_an_hour())
        .await
        .unwrap();
    let new = Some(Tokens::Jti("new".into()));
    let heard = async {
        // The feed tells what is in the table already once more: it may not have looked.
        while next(&mut told)
            .await
            .revocations
            .iter()
            .all(|r| r.tokens != new)
        {}
    };
    let heard = tokio::time::timeout(Duration::from_secs(1), heard).await;
    heard.expect("within a second");
}

#[tokio::test]
async fn what_no_token_can_have_is_not_revoked() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let mut client = client(&server).await;
    let revocation = |issuer: &str, tokens: Option<Tokens>| Revocation {
        issuer: issuer.into(),
        tokens,
        revoked_at: 0,
        expires_at: 1,
    };
    for revocation in [
        None,
        Some(revocation(ISSUER, None)),
        Some(revocation("", Some(Tokens::Jti("a".into())))),
        Some(revocation(ISSUER, Some(Tokens::Jti(String::new())))),
        Some(revocation(ISSUER, Some(Tokens::Sid("x".repeat(600))))),
        Some(revocation(ISSUER, Some(Tokens::Sub("a\0b".into())))),
    ] {
        let refused = client
            .revoke(RevokeRequest { revocation })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
}
