//! The API's own description, held against what the API takes and gives.
//!
//! A stack that is [`described`] fails each call whose answer, or whose body that was
//! taken, is not what `GET /v1/platform/openapi.json` of the same stack says.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result, anyhow, ensure};
use http::Method;
use jsonschema::Validator;
use postern_contract::{Match, Route, routes};
use postern_harness::api::{Exchange, Witness};
use postern_harness::stack::Stack;
use serde_json::{Value, json};

/// Has every call of the stack's clients compared with the description.
///
/// # Errors
/// The description is not served, or holds a schema that is none.
pub async fn described(stack: &Stack) -> Result<()> {
    let admin = stack.platform_admin().await?;
    let document = admin.get("/v1/platform/openapi.json").await?.expect(200)?;
    let description = Description::read(&document.json()?)?;
    stack.watched_by(Witness::new(move |exchange| description.look(exchange)));
    Ok(())
}

/// What each operation takes and gives, by the route's id.
struct Description(BTreeMap<String, Operation>);

#[derive(Default)]
struct Operation {
    /// By media type.
    bodies: BTreeMap<String, Schema>,
    /// By status and media type.
    answers: BTreeMap<(u16, String), Schema>,
}

/// Compiled when it is first needed: most tests need a few.
struct Schema {
    schema: Value,
    components: Arc<Value>,
    compiled: OnceLock<Result<Validator, String>>,
}

impl Description {
    fn read(document: &Value) -> Result<Self> {
        let components = document.get("components").cloned().unwrap_or_default();
        let components = Arc::new(components);
        let schema = |content: &Value| -> Result<Schema> {
            Ok(Schema {
                schema: content.get("schema").context("no schema")?.clone(),
                components: Arc::clone(&components),
                compiled: OnceLock::new(),
            })
        };
        let members = |value: Option<&Value>| {
            value
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default()
        };
        let mut operations = BTreeMap::new();
        for (_, methods) in members(document.get("paths")) {
            for (_, told) in members(Some(&methods)) {
                let mut operation = Operation::default();
                for (media_type, content) in members(told.pointer("/requestBody/content")) {
                    operation.bodies.insert(media_type, schema(&content)?);
                }
                for (status, answer) in members(told.get("responses")) {
                    let status: u16 = status.parse()?;
                    for (media_type, content) in members(answer.get("content")) {
                        let key = (status, media_type);
                        operation.answers.insert(key, schema(&content)?);
                    }
                }
                let id = told.get("operationId").and_then(Value::as_str);
                operations.insert(id.context("no operationId")?.to_owned(), operation);
            }
        }
        ensure!(!operations.is_empty(), "the description names no operation");
        Ok(Self(operations))
    }

    /// Requests that were carried out and their answers; refusals have a look of their own.
    fn look(&self, exchange: &Exchange<'_>) -> Result<()> {
        let path = exchange.target.split('?').next().unwrap_or_default();
        let Ok(Match::Found(route, _)) = routes().find_raw(exchange.method, path) else {
            return Ok(());
        };
        if !(200..300).contains(&exchange.reply.status) || *exchange.method == Method::HEAD {
            return Ok(());
        }
        self.compare(route, exchange)
            .with_context(|| format!("{} is not as described: {exchange:?}", route.id))
    }

    fn compare(&self, route: &Route, exchange: &Exchange<'_>) -> Result<()> {
        let operation = self
            .0
            .get(&route.id)
            .context("it is not described at all")?;
        let media_type = exchange.content_type.split(';').next().unwrap_or_default();
        let media_type = media_type.trim().to_ascii_lowercase();
        if media_type.ends_with("json") && !exchange.body.is_empty() {
            let schema = operation.bodies.get(&media_type);
            let schema = schema.context("the request's media type is not described")?;
            let mut body = serde_json::from_slice(exchange.body)?;
            if let Value::Object(members) = &mut body {
                // Taken for a member that is not there; nobody needs to be told to send it.
                members.retain(|_, value| !value.is_null());
            }
            schema.judge(&body).context("the request's body")?;
        }
        let reply = exchange.reply;
        let replayed = reply.header("x-idempotency-replayed").is_some();
        // Above the tenant's quota no body is kept; and what is compressed is the same.
        if replayed && reply.body.is_empty() || reply.header("content-encoding").is_some() {
            return Ok(());
        }
        let key = (
            reply.status,
            reply.header("content-type").unwrap_or_default().to_owned(),
        );
        let schema = operation.answers.get(&key);
        let schema = schema.with_context(|| format!("no {key:?} is described"))?;
        schema.judge(&reply.json()?).context("the answer")
    }
}

impl Schema {
    fn judge(&self, value: &Value) -> Result<()> {
        let compiled = self.compiled.get_or_init(|| {
            let whole = json!({"allOf": [self.schema], "components": *self.components});
            jsonschema::options()
                .should_validate_formats(true)
                .build(&whole)
                .map_err(|error| format!("{}: {error}", self.schema))
        });
        let validator = compiled.as_ref().map_err(|told| anyhow!("{told}"))?;
        let wrong: Vec<String> = validator
            .iter_errors(value)
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect();
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use bytes::Bytes;
    use postern_harness::http::Reply;

    use super::*;

    #[test]
    fn what_is_not_as_described_is_found() {
        let object = |required: &str| json!({"application/json": {"schema": {"type": "object", "required": [required]}}});
        let document = json!({"paths": {"/v1/tenants": {"post": {
            "operationId": "tenants.create",
            "requestBody": {"content": object("slug")},
            "responses": {"201": {"content": object("id")}},
        }}}});
        let description = Description::read(&document).unwrap();
        let look = |target: &str, body: &str, status: u16, answer: &str| {
            let mut reply = Reply::default();
            reply.status = status;
            let json = http::HeaderValue::from_static("application/json");
            reply.headers.insert("content-type", json);
            reply.body = Bytes::from(answer.to_owned());
            description.look(&Exchange {
                method: &Method::POST,
                target,
                content_type: "application/json; charset=utf-8",
                body: &Bytes::from(body.to_owned()),
                reply: &reply,
            })
        };
        let (slug, id) = (r#"{"slug":"a"}"#, r#"{"id":"1"}"#);
        look("/v1/tenants?x=1", slug, 201, id).unwrap();
        look("/v1/tenants", "{}", 400, "{}").unwrap();
        look("/nowhere", "{}", 200, "{}").unwrap();
        for (body, status, answer) in [("{}", 201, id), (slug, 201, "{}"), (slug, 200, id)] {
            look("/v1/tenants", body, status, answer).unwrap_err();
        }
    }
}
