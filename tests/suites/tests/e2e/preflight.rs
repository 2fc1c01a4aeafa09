//! What browsers ask before they ask.

use anyhow::{Result, ensure};
use http::Method;

use super::{ANY, stack};

#[tokio::test]
async fn a_preflight_needs_nothing_of_what_a_request_needs() -> Result<()> {
    let nobody = stack().await.anonymous();
    for path in ["/v1/tenants", "/v1/workspaces/wks_x", ANY, "/v1/nowhere"] {
        let reply = nobody
            .call(Method::OPTIONS, path)
            .without("x-api-version")
            .without("x-correlation-id")
            .set("origin", "https://app.example.com")
            .set("access-control-request-method", "POST")
            .set(
                "access-control-request-headers",
                "authorization,idempotency-key",
            )
            .await?;
        ensure!(matches!(reply.status, 200 | 204), "{reply:?}");
        ensure!(
            reply.one("access-control-allow-origin")? == "*",
            "{reply:?}"
        );
        let methods = reply.one("access-control-allow-methods")?;
        for needed in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            ensure!(methods.contains(needed), "{needed} is not among {methods}");
        }
        let headers = reply.one("access-control-allow-headers")?.to_lowercase();
        for needed in [
            "authorization",
            "idempotency-key",
            "x-api-version",
            "x-correlation-id",
        ] {
            ensure!(headers.contains(needed), "{needed} is not among {headers}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn refusals_and_answers_are_readable_from_a_browser() -> Result<()> {
    let stack = stack().await;
    let admin = stack.platform_admin().await?;
    for (client, path, status) in [
        (&admin, ANY, 200),
        (&stack.anonymous(), ANY, 401),
        (&admin, "/v1/tenants/none", 404),
        (&admin, "/nowhere", 404),
    ] {
        let call = client.get(path).set("origin", "https://app.example.com");
        let reply = call.await?.expect(status)?;
        ensure!(
            reply.one("access-control-allow-origin")? == "*",
            "{reply:?}"
        );
        let exposed = reply.one("access-control-expose-headers")?.to_lowercase();
        for name in [
            "x-correlation-id",
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            "x-idempotency-replayed",
            "etag",
            "location",
        ] {
            ensure!(exposed.contains(name), "{name} is not among {exposed}");
        }
    }
    Ok(())
}
