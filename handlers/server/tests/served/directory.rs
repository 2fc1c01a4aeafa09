//! What runners ask and watch.

use std::time::Duration;

use http::Method;
use hyper_util::rt::TokioIo;
use postern_directory::directory_client::DirectoryClient;
use postern_directory::event::Kind;
use postern_directory::get_request::Key;
use postern_directory::get_response::Entry;
use postern_directory::{
    Denial, Event, GetRequest, ReportDenialsRequest, SILENCE, Status, WatchRequest,
};
use serde_json::json;
use tokio::net::UnixStream;
use tonic::Streaming;
use tonic::transport::{Channel, Endpoint};

use crate::support::{Caller, Deployment, Request, Server, make_tenant};

pub(crate) async fn client(server: &Server) -> DirectoryClient<Channel> {
    let socket = server.socket.clone();
    let connect = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://directory")
        .connect_with_connector(connect)
        .await
        .unwrap();
    DirectoryClient::new(channel)
}

/// The next event; the silence that a runner takes for death is a failure.
async fn next(events: &mut Streaming<Event>) -> Event {
    let next = tokio::time::timeout(SILENCE, events.message())
        .await
        .expect("silence");
    next.unwrap().unwrap()
}

async fn watch(server: &Server) -> (Streaming<Event>, u64) {
    let mut events = client(server)
        .await
        .watch(WatchRequest {})
        .await
        .unwrap()
        .into_inner();
    let first = next(&mut events).await;
    assert!(matches!(first.kind, Some(Kind::Heartbeat(_))), "{first:?}");
    (events, first.revision)
}

async fn change(events: &mut Streaming<Event>) -> Event {
    loop {
        let event = next(events).await;
        if !matches!(event.kind, Some(Kind::Heartbeat(_))) {
            return event;
        }
    }
}

#[tokio::test]
async fn an_entry_is_told_as_it_stands() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let id = make_tenant(&deployment, &server).await;
    let mut client = client(&server).await;
    let got = client
        .get(GetRequest {
            key: Some(Key::TenantId(id.clone())),
        })
        .await
        .unwrap()
        .into_inner();
    let Some(Entry::Tenant(tenant)) = got.entry else {
        panic!("{got:?}")
    };
    assert_eq!(
        (tenant.status(), tenant.id, tenant.plan),
        (Status::Active, id, "starter".to_owned())
    );
    assert!(got.revision > 1);
    let none = client
        .get(GetRequest {
            key: Some(Key::WorkspaceId("wks_none".into())),
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(none.entry, None);
    assert!(client.get(GetRequest { key: None }).await.is_err());
}

#[tokio::test]
async fn every_change_is_heard_in_order_whoever_made_it() {
    let deployment = Deployment::new().await;
    let (server, other) = (deployment.serve("a").await, deployment.serve("b").await);
    let (mut events, began) = watch(&server).await;
    let mut made = Vec::new();
    for n in 0..6 {
        made.push(make_tenant(&deployment, if n % 2 == 0 { &server } else { &other }).await);
    }
    for (n, id) in made.iter().enumerate() {
        let event = change(&mut events).await;
        assert_eq!(event.revision, began + 1 + n as u64);
        assert_eq!(event.kind, Some(Kind::TenantChanged(id.clone())));
    }
}

#[tokio::test]
async fn concurrent_commits_are_numbered_without_a_gap() {
    let deployment = Deployment::new().await;
    let (server, other) = (deployment.serve("a").await, deployment.serve("b").await);
    let (mut events, began) = watch(&server).await;
    let posts =
        (0..20).map(|n| make_tenant(&deployment, if n % 2 == 0 { &server } else { &other }));
    let mut made = futures::future::join_all(posts).await;
    let mut heard = Vec::new();
    for n in 0..20 {
        let event = change(&mut events).await;
        assert_eq!(event.revision, began + 1 + n);
        let Some(Kind::TenantChanged(id)) = event.kind else {
            panic!("{event:?}")
        };
        heard.push(id);
    }
    made.sort();
    heard.sort();
    assert_eq!(heard, made);
}

#[tokio::test]
async fn heartbeats_come_and_stop_with_the_database() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let (mut events, _) = watch(&server).await;
    for _ in 0..5 {
        let beat = tokio::time::timeout(Duration::from_millis(900), events.message())
            .await
            .expect("a heartbeat");
        assert!(matches!(
            beat.unwrap().unwrap().kind,
            Some(Kind::Heartbeat(_))
        ));
    }
    // Revisions cannot be read any more: silence is the right thing to say.
    sqlx::raw_sql("ALTER TABLE postern.directory_revision RENAME TO gone")
        .execute(&deployment.pool)
        .await
        .unwrap();
    let silence = async {
        while tokio::time::timeout(SILENCE, events.message())
            .await
            .is_ok()
        {}
    };
    tokio::time::timeout(Duration::from_secs(5), silence)
        .await
        .expect("the heartbeats go on");
    assert!(
        client(&server).await.watch(WatchRequest {}).await.is_err(),
        "a new watch is told at once"
    );
}

#[tokio::test]
async fn a_plan_that_changed_and_a_missed_past_reset_everything() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let (mut events, _) = watch(&server).await;
    sqlx::query("UPDATE postern.plan SET workspaces = 4 WHERE id = 'starter'")
        .execute(&deployment.pool)
        .await
        .unwrap();
    assert!(matches!(
        change(&mut events).await.kind,
        Some(Kind::Reset(_))
    ));
    sqlx::query("UPDATE postern.directory_revision SET revision = revision + 5")
        .execute(&deployment.pool)
        .await
        .unwrap();
    assert!(matches!(
        change(&mut events).await.kind,
        Some(Kind::Reset(_))
    ));
}

#[tokio::test]
async fn a_runners_denials_are_in_the_trail() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let id = make_tenant(&deployment, &server).await;
    let denial = |tenant: &str, subject: String| Denial {
        at_ms: 1_700_000_000_000,
        correlation_id: "corr-of-runner".into(),
        route: "tenants.delete".into(),
        code: "ROLE_DENIED".into(),
        subject,
        tenant_id: tenant.into(),
        client_address: "192.0.2.9".into(),
        resource: id.clone(),
    };
    // Texts come from tokens: whatever is in them is written, cut.
    let denials = vec![
        denial(&id, "u-1".into()),
        denial("no id", "x\0y".repeat(500)),
    ];
    client(&server)
        .await
        .report_denials(ReportDenialsRequest {
            denials,
            dropped: 3,
        })
        .await
        .unwrap();
    let own = Caller::of_tenant(&id, "tenant_admin");
    let trail = format!("/v1/tenants/{id}/audit?action=tenants.delete");
    let trail = Request::new(&own, Method::GET, &trail)
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap();
    let trail = trail.json().unwrap();
    assert_eq!(trail["data"].as_array().unwrap().len(), 1);
    assert_eq!(
        trail["data"][0]["timestamp"],
        json!("2023-11-14T22:13:20.000Z")
    );
    let everything = Request::new(
        &Caller::platform("superadmin"),
        Method::GET,
        "/v1/platform/audit?action=tenants.delete",
    );
    let everything = everything
        .send(&deployment, &server)
        .await
        .expect(200)
        .unwrap()
        .json()
        .unwrap();
    assert_eq!(everything["data"].as_array().unwrap().len(), 2);
    let metrics = server.admin("/metrics").await;
    assert!(
        String::from_utf8_lossy(&metrics.body).contains("postern_audit_denials_dropped_total 3")
    );
}
