//! Straight at a handler, past the gateway: nothing is believed that the runner
//! did not seal for exactly this request.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use http::Method;
use postern_context::{Context, PathParam, SealingKeys};
use postern_contract::Family;
use postern_harness::api::Client;
use postern_harness::http::Reply;

use super::inside;

const HEADER: &str = "x-postern-context";

struct Handler {
    client: Client,
    keys: SealingKeys,
    tenant: String,
}

fn now_ms() -> u64 {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(age.as_millis()).unwrap()
}

impl Handler {
    async fn new() -> Result<Self> {
        let stack = inside().await;
        let keys = std::fs::read_to_string(stack.master_keys()?)?;
        Ok(Self {
            client: Client::new(&stack.handlers_url()?, None),
            keys: SealingKeys::parse(&keys)?,
            tenant: stack.with_tenant("acme").await?.id,
        })
    }

    /// What the runner seals for `GET /v1/tenants/<own>`.
    fn context(&self) -> Context {
        Context {
            route: "tenants.get".to_owned(),
            method: "GET".to_owned(),
            params: vec![PathParam {
                name: "tenantId".to_owned(),
                value: self.tenant.clone(),
            }],
            issuer: "https://issuer.example.com".to_owned(),
            subject: "somebody".to_owned(),
            tenant: self.tenant.clone(),
            roles: vec!["tenant_admin".to_owned()],
            scopes: vec!["tenants:read".to_owned()],
            correlation_id: "sealed-correlation".to_owned(),
            client_address: "192.0.2.1".to_owned(),
            api_version: "2024-01-01".to_owned(),
            ..Context::default()
        }
    }

    async fn get(&self, sealed: &[&str]) -> Result<Reply> {
        let call = self.client.get(&format!("/v1/tenants/{}", self.tenant));
        let call = call.set("x-correlation-id", "sealed-correlation");
        sealed
            .iter()
            .fold(call, |call, value| call.add(HEADER, value.as_bytes()))
            .await
    }

    fn seal(&self, context: Context) -> String {
        self.keys.seal(Family::Tenants, context, now_ms())
    }
}

#[tokio::test]
async fn a_good_context_opens_the_door() -> Result<()> {
    let handler = Handler::new().await?;
    let sealed = handler.seal(handler.context());
    let reply = handler.get(&[&sealed]).await?.expect(200)?;
    assert_eq!(reply.text_at("/id")?, handler.tenant);
    assert_eq!(reply.one("x-correlation-id")?, "sealed-correlation");
    Ok(())
}

#[tokio::test]
async fn anything_else_keeps_it_shut() -> Result<()> {
    let handler = Handler::new().await?;
    let good = handler.seal(handler.context());
    let other = SealingKeys::parse("k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")?;
    let forged = other.seal(Family::Tenants, handler.context(), now_ms());
    let at = |ms: u64| handler.keys.seal(Family::Tenants, handler.context(), ms);
    let [version, kid, text] = good.split('.').collect::<Vec<_>>()[..] else {
        anyhow::bail!("the seal has not three parts");
    };
    let short = &text[..text.len() - 4];
    let rows: Vec<(&str, Vec<String>)> = vec![
        ("none", vec![]),
        ("an empty one", vec![String::new()]),
        ("two", vec![good.clone(), good.clone()]),
        ("another key's", vec![forged]),
        ("an old one", vec![at(now_ms() - 61_500)]),
        ("one of the future", vec![at(now_ms() + 20_000)]),
        ("nothing sealed", vec![format!("{version}.{kid}.")]),
        ("a tag cut short", vec![format!("{version}.{kid}.{short}")]),
        ("an unknown key", vec![format!("{version}.k9.{text}")]),
        ("another version", vec![format!("v1.{kid}.{text}")]),
        (
            "a changed message",
            vec![format!("{version}.{kid}.AAAA{text}")],
        ),
        ("a book", vec!["x".repeat(20_000)]),
    ];
    for (what, sealed) in rows {
        let sealed: Vec<&str> = sealed.iter().map(String::as_str).collect();
        let reply = handler.get(&sealed).await?;
        reply
            .refused(401, "CONTEXT_INVALID")
            .with_context(|| what.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn a_context_is_for_one_request() -> Result<()> {
    let handler = Handler::new().await?;
    type Bend = fn(&mut Context);
    let bent: [(&str, Bend); 6] = [
        ("another route", |context| {
            context.route = "tenants.usage".to_owned()
        }),
        ("another method", |context| {
            context.method = "HEAD".to_owned()
        }),
        ("another tenant", |context| {
            context.params[0].value = "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned();
        }),
        ("another name", |context| {
            context.params[0].name = "workspaceId".to_owned()
        }),
        ("no parameter", |context| context.params.clear()),
        ("one more", |context| {
            context.params.push(PathParam::default())
        }),
    ];
    for (what, bend) in bent {
        let mut context = handler.context();
        bend(&mut context);
        let reply = handler.get(&[&handler.seal(context)]).await?;
        reply
            .refused(400, "PATH_AMBIGUOUS")
            .with_context(|| what.to_owned())?;
    }
    // Sealed for another family, and for another path of this one.
    let sealed = handler
        .keys
        .seal(Family::Workspaces, handler.context(), now_ms());
    handler
        .get(&[&sealed])
        .await?
        .refused(400, "PATH_AMBIGUOUS")?;
    let good = handler.seal(handler.context());
    for (method, path) in [
        (Method::GET, "/v1/tenants"),
        (Method::GET, "/v1/platform/info"),
        (Method::DELETE, &format!("/v1/tenants/{}", handler.tenant)),
    ] {
        let call = handler.client.call(method, path).set(HEADER, &good);
        let reply = call.set("x-correlation-id", "sealed-correlation").await?;
        reply.refused(400, "PATH_AMBIGUOUS")?;
    }
    Ok(())
}
