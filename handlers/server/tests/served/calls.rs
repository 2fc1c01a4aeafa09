//! Calls a month, from a runner's report to the tenant's usage.

use http::Method;
use postern_directory::{Calls, ReportCallsRequest, Used};
use tonic::Code;

use crate::directory::client;
use crate::support::{Caller, Deployment, Request, Server, make_tenant};

fn now() -> u64 {
    jiff::Timestamp::now().as_second().unsigned_abs()
}

async fn report(
    server: &Server,
    reporter: u8,
    sequence: u64,
    calls: &[(&str, u64, u64)],
) -> Result<Vec<Used>, Code> {
    report_by(server, "", reporter, sequence, calls).await
}

/// The same where a tenant's own issuer says whose they are.
async fn report_by(
    server: &Server,
    slug: &str,
    reporter: u8,
    sequence: u64,
    calls: &[(&str, u64, u64)],
) -> Result<Vec<Used>, Code> {
    let calls = calls.iter().map(|&(tenant, at, calls)| Calls {
        tenant_id: tenant.to_owned(),
        at,
        calls,
        tenant_slug: slug.to_owned(),
    });
    let report = ReportCallsRequest {
        reporter: vec![reporter; 16],
        sequence,
        calls: calls.collect(),
    };
    let answer = client(server).await.report_calls(report).await;
    answer
        .map(|answer| answer.into_inner().used)
        .map_err(|status| status.code())
}

#[tokio::test]
async fn a_report_counts_once_and_says_how_its_tenants_stand() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let tenant = make_tenant(&deployment, &server).await;
    let at = now();
    let told = |used| Used {
        tenant_id: tenant.clone(),
        at,
        used,
        limit: Some(50_000),
        tenant_slug: String::new(),
    };
    let rows = [
        (tenant.as_str(), at, 7),
        ("tnt_01JD0000000000000000000001", at, 9),
    ];
    for _ in 0..3 {
        assert_eq!(report(&server, 1, 1, &rows).await, Ok(vec![told(7)]));
    }
    // Another runner, the next report, a report that comes late.
    assert_eq!(report(&server, 2, 1, &rows).await, Ok(vec![told(14)]));
    assert_eq!(report(&server, 1, 2, &rows).await, Ok(vec![told(21)]));
    assert_eq!(report(&server, 1, 1, &rows).await, Ok(vec![told(21)]));
    // Last month has a count of its own; what is far away is nobody's.
    let last = at - 32 * 24 * 3600;
    let used = report(&server, 1, 3, &[(&tenant, last, 5), (&tenant, 0, 5)]).await;
    assert_eq!(
        used.unwrap()
            .into_iter()
            .map(|used| used.used)
            .collect::<Vec<_>>(),
        [5]
    );

    let path = format!("/v1/tenants/{tenant}/usage");
    let admin = Caller::of_tenant(&tenant, "tenant_admin");
    let usage = Request::new(&admin, Method::GET, &path);
    let usage = usage.send(&deployment, &server).await.json().unwrap();
    let quotas = usage["quotas"].as_array().unwrap();
    let calls = quotas
        .iter()
        .find(|quota| quota["quota"] == "callsPerMonth")
        .unwrap();
    assert_eq!(
        (&calls["used"], &calls["limit"]),
        (&21.into(), &50_000.into())
    );
}

/// Whoever administers a tenant's issuer can write any tenant's id into its tokens.
#[tokio::test]
async fn a_tenants_issuer_counts_for_that_tenant_alone() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let tenant = make_tenant(&deployment, &server).await;
    let path = format!("/v1/tenants/{tenant}");
    let admin = Caller::of_tenant(&tenant, "tenant_admin");
    let shown = Request::new(&admin, Method::GET, &path);
    let shown = shown.send(&deployment, &server).await.json().unwrap();
    let slug = shown["slug"].as_str().unwrap();
    let rows = [(tenant.as_str(), now(), 7)];
    let used = async |slug: &str, sequence| -> Vec<_> {
        let told = report_by(&server, slug, 1, sequence, &rows).await.unwrap();
        told.into_iter()
            .map(|told| (told.tenant_slug, told.used))
            .collect()
    };
    assert_eq!(used(slug, 1).await, [(slug.to_owned(), 7)]);
    assert_eq!(used("another", 2).await, []);
    assert_eq!(used("", 3).await, [(String::new(), 14)]);
}

#[tokio::test]
async fn what_is_no_report_is_refused() {
    let deployment = Deployment::new().await;
    let server = deployment.serve("a").await;
    let many = vec![("t", now(), 1); 2_001];
    assert_eq!(
        report(&server, 1, 1, &many).await,
        Err(Code::InvalidArgument)
    );
    let short = ReportCallsRequest {
        reporter: vec![1; 15],
        sequence: 1,
        calls: Vec::new(),
    };
    let refused = client(&server).await.report_calls(short).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(
        report(&server, 1, u64::MAX, &[]).await,
        Err(Code::InvalidArgument)
    );
}
