//! The context layer: the runner's verdict, believed only where our own reading agrees.
//!
//! Gateways decode and normalise a path before a plugin sees it and send the raw
//! one on. So the handler splits, then decodes the path itself, and goes on only
//! when route, method and every parameter equal the sealed ones. `X-Auth-*` and
//! whatever else a client could have set is never read.

use http::header::WWW_AUTHENTICATE;
use http::request::Parts;
use postern_context::{Context, OpenError, OpeningKeys};
use postern_contract::{Code, Family, Match, Params, Route, header, routes};

use crate::{Caller, Failure};

/// A request that the runner let pass, and that reads the same here.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) caller: Caller,
    pub(crate) route: &'static Route,
    pub(crate) params: Params<'static>,
}

/// Opens the context of a request, at this time (epoch milliseconds).
pub(crate) fn unseal(
    keys: &OpeningKeys,
    request: &Parts,
    now_ms: u64,
) -> Result<Admitted, Failure> {
    let mut headers = request.headers.get_all(header::POSTERN_CONTEXT).iter();
    let (Some(sealed), None) = (headers.next(), headers.next()) else {
        return Err(unsealed("the request did not come through the gateway"));
    };
    let reading = routes().find_raw(&request.method, request.uri.path());
    let (route, params) = match reading {
        Ok(Match::Found(route, params)) => (route, params),
        // Whoever has no context learns nothing of our routes.
        _ => return Err(elsewhere(keys, sealed.as_bytes(), None, now_ms)),
    };
    let context = match keys.open(route.family, sealed.as_bytes(), now_ms) {
        Ok(context) => context,
        Err(OpenError::Stale | OpenError::Malformed) => return Err(invalid()),
        Err(_) => {
            return Err(elsewhere(
                keys,
                sealed.as_bytes(),
                Some(route.family),
                now_ms,
            ));
        }
    };
    let same_params = context.params.len() == params.iter().count()
        && context
            .params
            .iter()
            .zip(params.iter())
            .all(|(sealed, (name, value))| sealed.name == name && sealed.value == value);
    if context.route != route.id || context.method != request.method.as_str() || !same_params {
        return Err(ambiguous());
    }
    Ok(Admitted {
        caller: Caller::new(context)?,
        route,
        params: params.into_owned(),
    })
}

/// The context does not open for the family we read. If it does for another one,
/// gateway and handler read the path differently; else it is no context of ours.
fn elsewhere(keys: &OpeningKeys, sealed: &[u8], tried: Option<Family>, now_ms: u64) -> Failure {
    let opens = |family| -> Result<Context, OpenError> { keys.open(family, sealed, now_ms) };
    let read_differently = Family::ALL
        .into_iter()
        .any(|family| Some(family) != tried && opens(family).is_ok());
    if read_differently {
        ambiguous()
    } else {
        invalid()
    }
}

fn invalid() -> Failure {
    unsealed("the request's context is not valid; send it through the gateway again")
}

/// A 401 names a way in (RFC 9110, 15.5.2): a token, which the gateway takes.
fn unsealed(message: &str) -> Failure {
    Failure::new(Code::ContextInvalid, message)
        .with_header(WWW_AUTHENTICATE, r#"Bearer realm="postern""#)
}

fn ambiguous() -> Failure {
    Failure::new(
        Code::PathAmbiguous,
        "the path reads in two ways; send it without dot segments, doubled or encoded slashes",
    )
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use http::Request;
    use postern_context::{PathParam, SealingKeys};

    use super::*;

    const NOW: u64 = 1_700_000_000_000;

    fn keys() -> (SealingKeys, OpeningKeys) {
        let sealing =
            SealingKeys::parse("k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
        let opening =
            OpeningKeys::parse(&sealing.opening_file(&[Family::Tenants, Family::Workspaces]))
                .unwrap();
        (sealing, opening)
    }

    /// What the runner read, what the handler received, at what distance in time.
    fn judge(
        family: Family,
        route: &str,
        param: (&str, &str),
        raw: &str,
        later: u64,
    ) -> Result<Admitted, Code> {
        let (sealing, opening) = keys();
        let params = vec![PathParam {
            name: param.0.into(),
            value: param.1.into(),
        }];
        let context = Context {
            route: route.into(),
            method: "GET".into(),
            params,
            ..Context::default()
        };
        let sealed = sealing.seal(family, context, NOW);
        let (parts, ()) = Request::get(raw)
            .header(header::POSTERN_CONTEXT, sealed)
            .body(())
            .unwrap()
            .into_parts();
        unseal(&opening, &parts, NOW + later).map_err(|failure| failure.code())
    }

    #[test]
    fn equal_readings_are_admitted() {
        let admitted = judge(
            Family::Tenants,
            "tenants.get",
            ("tenantId", "t x"),
            "/v1/tenants/t%20x?a=1",
            10,
        )
        .unwrap();
        assert_eq!(admitted.params.get("tenantId"), Some("t x"));
    }

    #[test]
    fn different_readings_are_ambiguous() {
        let read = ("tenantId", "a");
        for (family, route, raw) in [
            (Family::Tenants, "tenants.usage", "/v1/tenants/a%2Fusage"),
            (Family::Tenants, "tenants.get", "/v1/tenants/b"),
            (Family::Tenants, "tenants.get", "/v1/tenants//a"),
            (Family::Tenants, "tenants.get", "/v1/x/../tenants/a"),
            (Family::Tenants, "tenants.get", "/v1/tenants/%ff"),
            (Family::Workspaces, "workspaces.get", "/v1/tenants/a"),
        ] {
            assert_eq!(
                judge(family, route, read, raw, 0).unwrap_err(),
                Code::PathAmbiguous,
                "{raw}"
            );
        }
    }

    #[test]
    fn without_a_good_context_nothing_is_told() {
        let (_, opening) = keys();
        let bare = |uri: &str| Request::get(uri).body(()).unwrap().into_parts().0;
        let code = |parts: &Parts| unseal(&opening, parts, NOW).unwrap_err().code();
        assert_eq!(code(&bare("/v1/tenants")), Code::ContextInvalid);
        assert_eq!(code(&bare("/nothing")), Code::ContextInvalid);
        let mut twice = bare("/v1/tenants");
        for _ in 0..2 {
            twice
                .headers
                .append(header::POSTERN_CONTEXT, "v2.k1.x".parse().unwrap());
        }
        assert_eq!(code(&twice), Code::ContextInvalid);
        let stale = judge(
            Family::Tenants,
            "tenants.get",
            ("tenantId", "a"),
            "/v1/tenants/a",
            61_000,
        );
        assert_eq!(stale.unwrap_err(), Code::ContextInvalid);
        let foreign = judge(
            Family::Mongo,
            "tenants.get",
            ("tenantId", "a"),
            "/v1/tenants/a",
            0,
        );
        assert_eq!(foreign.unwrap_err(), Code::ContextInvalid);
    }
}
