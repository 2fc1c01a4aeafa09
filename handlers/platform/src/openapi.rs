//! The API's description, made from the routes table and `schemas.json`.
//!
//! The table says which requests exist and what each needs; the file says what the
//! bodies of this crate's routes look like. Families that are off are left out.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use postern_contract::{Code, Route, routes};
use serde_json::{Map, Value, json};

use crate::About;

/// Body schemas and arguments by route id, and the schemas they refer to.
static SCHEMAS: LazyLock<Value> =
    LazyLock::new(|| serde_json::from_str(include_str!("schemas.json")).unwrap_or_default());

/// The OpenAPI 3.1 document of a deployment.
pub(crate) fn document(about: &About) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes()
        .all()
        .iter()
        .filter(|route| about.families.contains(&route.family))
    {
        let path = path(route);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(methods) = methods.as_object_mut() {
            methods.insert(route.method.as_str().to_ascii_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "Postern", "version": env!("CARGO_PKG_VERSION"),
                 "description": format!("API versions: {}", about.api_versions.join(", "))},
        "paths": paths,
        "components": {
            "schemas": SCHEMAS.get("schemas").cloned().unwrap_or_default(),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "headers": {"CorrelationId": {"schema": {"type": "string"}}},
        },
    })
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

fn operation(route: &Route) -> Value {
    let known = SCHEMAS
        .pointer(&format!("/routes/{}", route.id))
        .cloned()
        .unwrap_or_default();
    let mut operation = json!({
        "operationId": route.id,
        "tags": [route.family],
        "parameters": parameters(route, &known),
        "responses": responses(route, &known),
    });
    let Some(members) = operation.as_object_mut() else {
        return operation;
    };
    if let Some(body) = known.get("body") {
        let content: Map<_, _> = route
            .media_types
            .iter()
            .map(|media_type| {
                (
                    media_type.clone(),
                    json!({"schema": {"$ref": format!("#/components/schemas/{}", text(body))}}),
                )
            })
            .collect();
        members.insert(
            "requestBody".into(),
            json!({"required": true, "content": content}),
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

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn parameters(route: &Route, known: &Value) -> Vec<Value> {
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
    let arguments = known
        .get("query")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    parameters.extend(arguments.map(|name| parameter("query", text(name), false)));
    parameters
}

fn responses(route: &Route, known: &Value) -> Value {
    let status = known.get("status").map_or("200", text);
    let mut answer = json!({"description": "Success",
        "headers": {"X-Correlation-Id": {"$ref": "#/components/headers/CorrelationId"}}});
    if let (Some(schema), Some(members)) = (known.get("answer"), answer.as_object_mut()) {
        let schema = json!({"$ref": format!("#/components/schemas/{}", text(schema))});
        members.insert(
            "content".into(),
            json!({"application/json": {"schema": schema}}),
        );
    }
    let mut responses = Map::from_iter([(status.to_owned(), answer)]);
    let general: &[Code] = if route.is_public() {
        &[
            Code::ValidationError,
            Code::RateLimited,
            Code::Internal,
            Code::BackendUnavailable,
        ]
    } else {
        &[
            Code::ValidationError,
            Code::TokenInvalid,
            Code::ScopeDenied,
            Code::RateLimited,
            Code::Internal,
            Code::BackendUnavailable,
        ]
    };
    let own = known
        .get("codes")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(text);
    let own = own.filter_map(|name| Code::ALL.iter().find(|code| code.as_str() == name));
    let codes: Vec<_> = general.iter().chain(own).copied().collect();
    let statuses: BTreeSet<_> = codes.iter().map(|code| code.status()).collect();
    for status in statuses {
        let names: Vec<_> = codes
            .iter()
            .filter(|code| code.status() == status)
            .map(|code| code.as_str())
            .collect();
        let refusal = json!({"description": names.join(", "),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}});
        responses.insert(status.to_string(), refusal);
    }
    Value::Object(responses)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;
    use crate::FAMILIES;

    fn about() -> About {
        About {
            api_versions: vec!["2024-01-01".into()],
            families: FAMILIES.into(),
        }
    }

    #[test]
    fn every_route_of_ours_is_described_and_no_other() {
        let described = SCHEMAS.get("routes").unwrap().as_object().unwrap();
        let ours: Vec<_> = FAMILIES
            .iter()
            .flat_map(|family| routes().of(*family))
            .collect();
        for route in &ours {
            let known = described
                .get(&route.id)
                .unwrap_or_else(|| panic!("{} is not described", route.id));
            let body = route.is_mutation() && route.method != http::Method::DELETE;
            assert_eq!(known.get("body").is_some(), body, "{}", route.id);
        }
        assert_eq!(described.len(), ours.len());
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn walk(value: &Value, visit: &mut impl FnMut(&str)) {
            match value {
                Value::Object(members) => {
                    members
                        .iter()
                        .for_each(|(name, value)| match value.as_str() {
                            Some(target) if name == "$ref" => visit(target),
                            _ => walk(value, visit),
                        })
                }
                Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
                _ => {}
            }
        }
        let document = document(&about());
        let mut seen = 0;
        walk(&document, &mut |target| {
            seen += 1;
            let pointer = target.strip_prefix('#').unwrap();
            assert!(
                document.pointer(pointer).is_some(),
                "{target} leads nowhere"
            );
        });
        assert!(seen > 20, "{seen}");
    }

    #[test]
    fn codes_are_codes() {
        for (id, known) in SCHEMAS.get("routes").unwrap().as_object().unwrap() {
            for code in known
                .get("codes")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                assert!(
                    Code::ALL.iter().any(|known| known.as_str() == text(code)),
                    "{id}: {code}"
                );
            }
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
}
