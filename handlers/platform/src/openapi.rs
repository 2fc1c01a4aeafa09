//! The API's description, made from the routes table and what the families say of
//! their bodies.
//!
//! The table says which requests exist and what each needs; a family's `schemas.json`
//! says what the bodies of its routes look like. Families that are off are left out.

use std::collections::BTreeSet;

use postern_contract::{Code, Route, routes};
use serde_json::{Map, Value, json};

use crate::About;

/// What this crate's routes take and give.
pub const SCHEMAS: &str = include_str!("schemas.json");

/// The OpenAPI 3.1 document of a deployment.
#[must_use]
pub fn document(about: &About) -> Value {
    let known = Known::read(&about.schemas);
    let mut paths: Map<String, Value> = Map::new();
    for route in routes()
        .all()
        .iter()
        .filter(|route| about.families.contains(&route.family))
    {
        let path = path(route);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(
                route.method.as_str().to_ascii_lowercase(),
                operation(route, &known),
            );
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Postern", "version": env!("CARGO_PKG_VERSION"),
                 "description": format!("API versions: {}", about.api_versions.join(", "))},
        "paths": paths,
        "components": {
            "schemas": known.schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "headers": {"CorrelationId": {"schema": {"type": "string"}}},
        },
    })
}

/// What families say of their bodies: by route id, and the schemas referred to.
#[derive(Default)]
struct Known {
    routes: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Known {
    fn read(files: &[&str]) -> Self {
        let mut known = Self::default();
        for file in files {
            let mut file: Value = serde_json::from_str(file).unwrap_or_default();
            for (name, into) in [
                ("routes", &mut known.routes),
                ("schemas", &mut known.schemas),
            ] {
                if let Some(Value::Object(members)) = file.get_mut(name).map(Value::take) {
                    into.extend(members);
                }
            }
        }
        known
    }
}

/// `/v1/tenants/:tenantId` → `/v1/tenants/{tenantId}`.
fn path(route: &Route) -> String {
    let segment = |segment: &str| match segment.split_at_checked(1) {
        Some((":" | "*", name)) => format!("{{{name}}}"),
        _ => segment.to_owned(),
    };
    route
        .path
        .split('/')
        .map(segment)
        .collect::<Vec<_>>()
        .join("/")
}

fn operation(route: &Route, known: &Known) -> Value {
    let told = known.routes.get(&route.id).unwrap_or(&Value::Null);
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.family],
        "parameters": parameters(route, told),
        "responses": responses(route, told),
    });
    let Some(members) = operation.as_object_mut() else {
        return operation;
    };
    if let Some(name) = told.get("body").and_then(Value::as_str) {
        let content: Map<_, _> = route
            .media_types
            .iter()
            .map(|media_type| {
                let schema = in_media_type(media_type, name, known);
                (media_type.clone(), json!({"schema": schema}))
            })
            .collect();
        let required = told.get("bodyRequired") != Some(&Value::Bool(false));
        members.insert(
            "requestBody".into(),
            json!({"required": required, "content": content}),
        );
    }
    if route.is_public() {
        members.insert("security".into(), json!([]));
    } else {
        members.insert("security".into(), json!([{"bearer": route.scope}]));
        members.insert("x-roles".into(), json!(route.roles));
    }
    operation
}

/// What a body of a media type looks like.
fn in_media_type(media_type: &str, name: &str, known: &Known) -> Value {
    if media_type.ends_with("json") {
        return reference(name);
    }
    if media_type == "application/x-www-form-urlencoded" {
        let mut form = known.schemas.get(name).cloned().unwrap_or_default();
        in_names_of_forms(&mut form);
        return form;
    }
    json!({"type": "string"})
}

/// Forms have the names of RFC 6749: `grantType` is `grant_type`.
fn in_names_of_forms(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(in_names_of_forms),
        Value::Object(members) => {
            for (keyword, value) in members {
                match (keyword.as_str(), &mut *value) {
                    ("properties", Value::Object(properties)) => {
                        *properties = std::mem::take(properties)
                            .into_iter()
                            .map(|(name, schema)| (snake_case(&name), schema))
                            .collect();
                    }
                    ("required", Value::Array(names)) => names
                        .iter_mut()
                        .for_each(|name| *name = snake_case(text(name)).into()),
                    _ => in_names_of_forms(value),
                }
            }
        }
        _ => {}
    }
}

fn snake_case(camel: &str) -> String {
    let mut snake = String::new();
    for letter in camel.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The texts of a list that may not be there.
fn texts<'v>(told: &'v Value, name: &str) -> impl Iterator<Item = &'v str> {
    let list = told.get(name).and_then(Value::as_array);
    list.into_iter().flatten().map(text)
}

fn parameters(route: &Route, told: &Value) -> Vec<Value> {
    let parameter = |place: &str, name: &str, required: bool| json!({"in": place, "name": name, "required": required, "schema": {"type": "string"}});
    let in_path = route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix([':', '*']));
    let mut parameters: Vec<_> = in_path.map(|name| parameter("path", name, true)).collect();
    parameters.push(parameter("header", "X-API-Version", !route.is_public()));
    parameters.push(parameter("header", "X-Correlation-Id", !route.is_public()));
    if route.idempotent {
        parameters.push(parameter("header", "Idempotency-Key", true));
    }
    parameters.extend(texts(told, "headers").map(|name| parameter("header", name, false)));
    parameters.extend(texts(told, "query").map(|name| parameter("query", name, false)));
    if let Some(filters) = told.get("filters") {
        // A name of the client's own choice each.
        parameters.push(
            json!({"in": "query", "name": "filters", "description": filters, "style": "form", "explode": true,
            "schema": {"type": "object", "additionalProperties": {"type": "string"}}}),
        );
    }
    parameters
}

/// What each request may be refused with for what the table says of its route.
fn general(route: &Route) -> Vec<Code> {
    let mut codes = vec![
        Code::ValidationError,
        Code::RateLimited,
        Code::Internal,
        Code::BackendUnavailable,
    ];
    if !route.is_public() {
        codes.extend([Code::TokenInvalid, Code::ScopeDenied]);
    }
    if !route.roles.is_empty() {
        codes.push(Code::RoleDenied);
    }
    if route.capability.is_some() {
        codes.extend([
            Code::TenantSuspended,
            Code::WorkspaceSuspended,
            Code::CapabilityDisabled,
            Code::WorkspaceNotFound,
            Code::WorkspaceProvisioning,
        ]);
    }
    if route.idempotent {
        codes.extend([
            Code::IdempotencyKeyMissing,
            Code::IdempotencyInProgress,
            Code::IdempotencyKeyReused,
        ]);
    }
    if route.is_mutation() {
        codes.extend([Code::BodyTooLarge, Code::UnsupportedMediaType]);
    }
    codes
}

fn responses(route: &Route, told: &Value) -> Value {
    let mut answer = json!({"description": "Success",
        "headers": {"X-Correlation-Id": {"$ref": "#/components/headers/CorrelationId"}}});
    if let (Some(name), Some(members)) = (told.get("answer"), answer.as_object_mut()) {
        let also = told.get("also").and_then(Value::as_object).cloned();
        let mut content = also.unwrap_or_default();
        content.insert("application/json".into(), name.clone());
        for schema in content.values_mut() {
            *schema = json!({"schema": reference(text(schema))});
        }
        members.insert("content".into(), content.into());
    }
    let statuses: Vec<_> = texts(told, "status").collect();
    let statuses = if statuses.is_empty() {
        vec!["200"]
    } else {
        statuses
    };
    let mut responses: Map<String, Value> = statuses
        .into_iter()
        .map(|status| (status.to_owned(), answer.clone()))
        .collect();
    let own =
        texts(told, "codes").filter_map(|name| Code::ALL.iter().find(|code| code.as_str() == name));
    let codes: Vec<_> = general(route).into_iter().chain(own.copied()).collect();
    let statuses: BTreeSet<_> = codes.iter().map(|code| code.status()).collect();
    for status in statuses {
        let names: Vec<_> = codes
            .iter()
            .filter(|code| code.status() == status)
            .map(|code| code.as_str())
            .collect();
        let refusal = json!({"description": names.join(", "),
            "content": {"application/json": {"schema": reference("Error")}}});
        responses.insert(status.to_string(), refusal);
    }
    Value::Object(responses)
}

#[cfg(test)]
#[expect(clippy::indexing_slicing, reason = "what is missing is a failed test")]
mod tests {
    use super::*;
    use crate::FAMILIES;

    fn about() -> About {
        About {
            api_versions: vec!["2024-01-01".into()],
            families: FAMILIES.into(),
            schemas: vec![SCHEMAS],
        }
    }

    #[test]
    fn families_that_are_off_are_left_out() {
        let document = document(&about());
        assert!(
            document
                .pointer("/paths/~1v1~1tenants~1{tenantId}/patch")
                .is_some()
        );
        assert!(!document.to_string().contains("/v1/postgres"));
    }

    #[test]
    fn a_form_has_the_names_of_its_rfc() {
        let mut schema = json!({
            "required": ["grantType"], "properties": {"clientId": {"type": "string"}},
            "oneOf": [{"properties": {"grantType": {"const": "client_credentials"}}}],
        });
        in_names_of_forms(&mut schema);
        assert_eq!(schema["required"], json!(["grant_type"]));
        assert_eq!(
            schema["properties"],
            json!({"client_id": {"type": "string"}})
        );
        let grant = &schema["oneOf"][0]["properties"];
        assert_eq!(
            *grant,
            json!({"grant_type": {"const": "client_credentials"}})
        );
    }
}
