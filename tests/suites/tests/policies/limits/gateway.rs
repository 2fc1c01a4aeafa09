//! Every limit of `rate-limit`, through the gateway: each family's route has another one.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use postern_harness::api::Client;
use postern_harness::http::Reply;
use postern_harness::stack::Stack;
use postern_harness::token::Token;
use serde_json::{Value, json};

/// What each family's route says. One comes back a minute, so none does in a test.
fn limits() -> Value {
    let few = |burst: u32| json!({"rate": 1, "burst": burst});
    json!({
        "platform": {"tenant": few(5)},
        "tenants": {"rate": 1, "burst": 20, "costs": {"tenants.get": 10}},
        "workspaces": {"plans": {"growth": few(4)}},
        "iam": {"route": few(6)},
        "mongo": {"rate": 1, "burst": 2, "shadow": true},
        "events": {"address": few(3)},
    })
}

/// The repository's routes with these limits.
fn configure(original: &Path, copy: &Path) -> Result<()> {
    std::fs::create_dir_all(copy)?;
    for file in std::fs::read_dir(original)? {
        let file = file?;
        if file.file_type()?.is_file() {
            std::fs::copy(file.path(), copy.join(file.file_name()))?;
        }
    }
    let path = copy.join("apisix.yaml");
    let mut routes: Value = serde_yaml_ng::from_str(&std::fs::read_to_string(&path)?)?;
    let limits = limits();
    for route in routes["routes"].as_array_mut().context("no routes")? {
        let family = route["id"].as_str().unwrap_or_default().to_owned();
        let Some(limit) = limits.get(&family) else {
            continue;
        };
        let conf = route.pointer_mut("/plugins/ext-plugin-pre-req/conf");
        for plugin in conf.and_then(Value::as_array_mut).context("no chain")? {
            if plugin["name"] == "rate-limit" {
                plugin["value"] = limit.to_string().into();
            }
        }
    }
    std::fs::write(
        &path,
        format!("{}#END\n", serde_yaml_ng::to_string(&routes)?),
    )?;
    Ok(())
}

/// How many of so many pass, and the first that does not.
async fn passed(client: &Client, path: &str, times: u32) -> Result<(u32, Option<Reply>)> {
    for passed in 0..times {
        let reply = client.get(path).await?;
        if reply.status == 429 {
            reply.refused(429, "RATE_LIMITED")?;
            return Ok((passed, Some(reply)));
        }
    }
    Ok((times, None))
}

fn policy(refused: Option<Reply>) -> Result<String> {
    let refused = refused.context("nothing was refused")?;
    let policy = refused.one("ratelimit-policy")?.to_owned();
    let (name, rest) = policy.split_once(';').context("no parameters")?;
    let state = refused.one("ratelimit")?;
    // About the same partition, and not later than Retry-After: that is about what the
    // request costs, this about the next one.
    let (_, pk) = policy.split_once(";pk=").context("no partition key")?;
    ensure!(rest.starts_with("q=") && rest.contains(";w=60"), "{policy}");
    let middle = state
        .strip_prefix(name)
        .and_then(|rest| rest.strip_suffix(pk));
    let window = middle.and_then(|middle| middle.strip_prefix(";r=0;t=")?.strip_suffix(";pk="));
    let window: u64 = window.with_context(|| state.to_owned())?.parse()?;
    let wait: u64 = refused.one("retry-after")?.parse()?;
    ensure!(1 <= window && window <= wait, "{window} and {wait}");
    Ok(name.trim_matches('"').to_owned())
}

#[tokio::test]
async fn each_limit_holds_through_the_gateway() -> Result<()> {
    let stack = Stack::start_with(|plan| {
        let copy = plan.data.join("apisix-conf");
        configure(&plan.configuration, &copy).expect("the routes can be copied");
        plan.configuration = copy;
    })
    .await?;
    let acme = stack.with_tenant("acme").await?;
    let other = stack.with_tenant("other").await?;
    let of = async |tenant: &str, plan: &str| {
        let token = Token::of_tenant(tenant, "tenant_admin").claim("plan_id", json!(plan));
        stack.client(&token).await
    };
    let (one, two) = (of(&acme.id, "growth").await?, of(&acme.id, "growth").await?);

    // A tenant's people share five; another tenant has its own.
    const INFO: &str = "/v1/platform/info";
    let (first, _) = passed(&one, INFO, 3).await?;
    let (second, refused) = passed(&two, INFO, 5).await?;
    assert_eq!((first + second, policy(refused)?), (5, "tenant".into()));
    assert_eq!(passed(&of(&other.id, "growth").await?, INFO, 5).await?.0, 5);

    // What the limit of the tenant refused took nothing from the caller.
    let left = one.get(INFO).await?;
    assert_eq!(
        left.one("ratelimit-policy")?.split(';').next(),
        Some("\"tenant\"")
    );

    // A read of one tenant counts as ten: twice, and then not even a list's one.
    let (reads, refused) = passed(&one, &acme.path(), 5).await?;
    assert_eq!((reads, policy(refused)?), (2, "tenant_control".into()));
    one.get("/v1/tenants?limit=1")
        .await?
        .refused(429, "RATE_LIMITED")?;

    // By the tenant's plan.
    const WORKSPACES: &str = "/v1/workspaces?limit=1";
    let (calls, refused) = passed(&one, WORKSPACES, 9).await?;
    assert_eq!((calls, policy(refused)?), (4, "plan".into()));
    // It is the directory's: what the token says of it counts for as long as nobody was asked.
    let claims_starter = of(&acme.id, "starter").await?;
    let (calls, refused) = passed(&claims_starter, WORKSPACES, 9).await?;
    assert_eq!((calls, policy(refused)?), (0, "plan".into()));
    let starter = stack.with_tenant_of("starter", "small").await?;
    let starter = of(&starter.id, "growth").await?;
    let (calls, _) = passed(&starter, WORKSPACES, 9).await?;
    assert_eq!(calls, 9, "no limit of that plan");

    // Everybody on a route together.
    const REALMS: &str = "/v1/iam/realms";
    let (first, _) = passed(&one, REALMS, 3).await?;
    let (second, refused) = passed(&starter, REALMS, 9).await?;
    assert_eq!((first + second, policy(refused)?), (6, "route".into()));

    // Counted and told, and let pass.
    let documents = "/v1/mongo/wks_01JD0000000000000000000002/collections";
    let (calls, _) = passed(&one, documents, 9).await?;
    assert_eq!(calls, 9, "in shadow nothing is refused");
    assert_eq!(one.get(documents).await?.one("x-ratelimit-remaining")?, "0");

    // All who come from one address, whoever they are.
    let topics = "/v1/events/wks_01JD0000000000000000000002/topics";
    let (calls, refused) = passed(&two, topics, 9).await?;
    assert_eq!((calls, policy(refused)?), (3, "caller-address".into()));
    let namesake = one.with_token(two.token().map(str::to_owned));
    assert_eq!(
        passed(&namesake, topics, 2).await?.0,
        2,
        "from another address"
    );
    Ok(())
}
