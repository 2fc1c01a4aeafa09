//! What the bodies of every family look like, for the API's description: also of those
//! that another process serves.

pub(crate) const ALL: [&str; 4] = [
    postern_platform::openapi::SCHEMAS,
    postern_auth::SCHEMAS,
    postern_postgres::SCHEMAS,
    postern_mongo::SCHEMAS,
];

#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;
    use postern_contract::{Code, Family, Route, routes};
    use postern_platform::About;
    use serde_json::Value;

    use super::*;

    /// Those that this build serves.
    const SERVED: [Family; 7] = [
        Family::Platform,
        Family::Tenants,
        Family::Workspaces,
        Family::Auth,
        Family::Iam,
        Family::Postgres,
        Family::Mongo,
    ];

    fn document() -> Value {
        postern_platform::openapi::document(&About {
            api_versions: vec!["2024-01-01".into()],
            families: SERVED.into(),
            schemas: ALL.to_vec(),
        })
    }

    fn served() -> impl Iterator<Item = &'static Route> {
        SERVED.iter().flat_map(|family| routes().of(*family))
    }

    fn operation<'d>(document: &'d Value, route: &Route) -> &'d Value {
        let operations = document["paths"].as_object().unwrap().values();
        let mut operations = operations.flat_map(|methods| methods.as_object().unwrap().values());
        let found = operations.find(|operation| operation["operationId"] == *route.id);
        found.unwrap_or_else(|| panic!("{} is not described", route.id))
    }

    /// A route that can change something takes a body unless it removes; each gives one.
    #[test]
    fn every_body_has_a_schema() {
        let document = document();
        for route in served() {
            let operation = operation(&document, route);
            let takes = route.is_mutation() && route.method != Method::DELETE;
            let content = operation["requestBody"]["content"].as_object();
            assert_eq!(content.is_some(), takes, "{}: the request's body", route.id);
            for media_type in route.media_types.iter().filter(|_| takes) {
                let schema = &content.unwrap()[media_type]["schema"];
                assert!(schema.is_object(), "{}: {media_type}", route.id);
            }
            let responses = operation["responses"].as_object().unwrap();
            let good = responses
                .iter()
                .filter(|(status, _)| status.starts_with('2'));
            let good: Vec<_> = good.collect();
            assert!(!good.is_empty(), "{}", route.id);
            for (status, answer) in good {
                let schema = &answer["content"]["application/json"]["schema"];
                assert!(schema.is_object(), "{}: the answer {status}", route.id);
            }
        }
    }

    #[test]
    fn nothing_is_described_that_is_not_there() {
        let (mut described, mut schemas) = (BTreeSet::new(), BTreeSet::new());
        for file in ALL {
            let file: Value = serde_json::from_str(file).unwrap();
            for (name, _) in file["schemas"].as_object().unwrap() {
                assert!(schemas.insert(name.clone()), "{name} stands twice");
            }
            for (id, told) in file["routes"].as_object().unwrap() {
                assert!(described.insert(id.clone()), "{id} stands twice");
                for code in told["codes"].as_array().into_iter().flatten() {
                    let known = Code::ALL.iter().any(|known| known.as_str() == code);
                    assert!(known, "{id}: {code} is no code");
                }
            }
        }
        let routes: BTreeSet<_> = served().map(|route| route.id.clone()).collect();
        assert_eq!(described, routes);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_schema_is_used() {
        let document = document();
        let whole = document.to_string();
        let targets: BTreeSet<_> = whole
            .split("\"$ref\":\"#")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        for target in &targets {
            assert!(document.pointer(target).is_some(), "{target} leads nowhere");
        }
        for (name, _) in document["components"]["schemas"].as_object().unwrap() {
            let pointer = format!("/components/schemas/{name}");
            // A form's schema is written out.
            assert!(targets.contains(pointer.as_str()), "{name} is not used");
        }
    }
}
