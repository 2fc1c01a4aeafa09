//! One request through the handlers, in order:
//!
//! 1. **unseal** the context, before anything of the request is believed;
//! 2. **route** to the family's function, which
//!    3. reads and **hashes the body** within its limit, before it takes a database connection,
//!    4. judges what depends on the body,
//!    5. and runs in the **idempotent transaction** (mutations) or on a snapshot (reads);
//! 6. **denials** go to the audit trail;
//! 7. the **answer** gets its validator, correlation id, rate-limit and replay headers.
//!
//! Around all of it: the deadline, and a net for panics, which cost one request.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use postern_claims::ClaimStore;
use postern_context::OpeningKeys;
use postern_contract::{Code, Route, header};
use tracing::Instrument as _;

use crate::call::UnreadBody;
use crate::idempotency::Pending;
use crate::unseal::{Admitted, unseal};
use crate::{Body, Call, Caller, Failure, Reply, Router, etag, telemetry};

/// Time-outs of a request.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The whole request, to the last byte of its answer; reads are cancelled, mutations go
    /// on in their task.
    pub request: Duration,
    /// From the first to the last byte of a body.
    pub body: Duration,
}

/// A refusal for the audit trail.
#[derive(Debug)]
pub struct Denial<'d> {
    /// Who was refused.
    pub caller: &'d Caller,
    /// What was asked for.
    pub route: &'static Route,
    /// The resource asked for, by default that of the path; empty: none.
    pub resource: &'d str,
    /// Why.
    pub code: Code,
}

/// Where denials are written.
pub trait DenialLog: Send + Sync {
    /// Writes one; a failure to do so is logged there and goes no further.
    fn denied<'a>(&'a self, denial: Denial<'a>) -> BoxFuture<'a, ()>;
}

/// What every request goes through.
pub struct Chain {
    keys: Arc<ArcSwap<OpeningKeys>>,
    router: Router,
    denials: Arc<dyn DenialLog>,
    claims: Option<ClaimStore>,
    times: Times,
}

/// How long an answer waits for its denial to be written.
const DENIAL_WAIT: Duration = Duration::from_secs(1);

/// What becomes known of a request on its way, for its answer and its event.
#[derive(Debug)]
struct Known {
    correlation_id: String,
    caller: Option<Caller>,
    route: Option<&'static Route>,
    code: Option<Code>,
}

impl Chain {
    /// A chain that opens contexts with these keys, which may be replaced while it serves.
    /// Claims of requests that decided nothing are released in `claims`.
    pub fn new(
        keys: Arc<ArcSwap<OpeningKeys>>,
        router: Router,
        denials: Arc<dyn DenialLog>,
        claims: Option<ClaimStore>,
        times: Times,
    ) -> Self {
        Self {
            keys,
            router,
            denials,
            claims,
            times,
        }
    }

    /// Answers one request; there is always an answer.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let span = telemetry::traces::request(request.method(), request.headers());
        self.traced(request).instrument(span).await
    }

    async fn traced(&self, request: Request<Incoming>) -> Response<Body> {
        let started = Instant::now();
        let (head, body) = request.into_parts();
        let method = head.method.clone();
        let conditions = conditions(&head.headers);
        let trace = telemetry::trace_id(&head.headers);
        let mut known = Known {
            correlation_id: correlation_id(&head.headers),
            caller: None,
            route: None,
            code: None,
        };

        let body = UnreadBody::new(body);
        let judged = AssertUnwindSafe(self.judge(head, body.clone(), &mut known))
            .catch_unwind()
            .await;
        let result = judged
            .unwrap_or_else(|panic| Err(Failure::Panicked(telemetry::panic_message(&*panic))));
        let reply = match result {
            // A digest over what is not there yet cannot stand in front of it.
            Ok(reply)
                if is_read(&method)
                    && matches!(reply.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT)
                    && reply.is_whole() =>
            {
                etag::conditional(reply, &conditions)
            }
            Ok(reply) => reply,
            Err(failure) => {
                known.code = Some(failure.code());
                if failure.code() == Code::Internal {
                    tracing::error!(correlation_id = known.correlation_id, cause = %failure, "request failed");
                } else if matches!(failure, Failure::Database(_)) {
                    tracing::warn!(correlation_id = known.correlation_id, cause = %failure, "the database was in the way");
                }
                Reply::refusal(&failure, &known.correlation_id)
            }
        };
        body.drain().await;
        telemetry::request(&telemetry::Event {
            method: &method,
            route: known.route,
            status: reply.status,
            code: known.code,
            replayed: reply.replayed,
            correlation_id: &known.correlation_id,
            caller: known.caller.as_ref(),
            trace: trace.as_deref(),
            took: started.elapsed(),
        });
        complete(reply, &known, started + self.times.request)
    }

    async fn judge(
        &self,
        head: Parts,
        body: UnreadBody,
        known: &mut Known,
    ) -> Result<Reply, Failure> {
        let admitted = unseal(&self.keys.load(), &head, now_ms())?;
        let Admitted { caller, route, .. } = &admitted;
        let route = *route;
        known.correlation_id = caller.correlation_id().to_owned();
        known.caller = Some(caller.clone());
        known.route = Some(route);
        let Some(handler) = self.router.get(&route.id) else {
            let message = format!("the {} family is off here", route.family);
            return Err(Failure::new(Code::FamilyUnavailable, message));
        };
        let resource = admitted
            .params
            .iter()
            .last()
            .map(|(_, value)| value.to_owned())
            .unwrap_or_default();
        let claim = Pending::new(self.claims.as_ref(), caller.context().claim.as_ref());
        let call = Call::new(admitted, head, body, self.times.body, claim.begun());
        let handled = tokio::time::timeout(self.times.request, handler(call)).await;
        let result = handled.unwrap_or(Err(Failure::Deadline));
        if let (Err(failure), Some(caller)) = (&result, &known.caller) {
            // Past the deadline the mutation may still run: its claim lapses by itself.
            if !matches!(failure, Failure::Deadline) {
                claim.release().await;
            }
            if let Some(denied) = failure.denied() {
                let resource = denied.unwrap_or(&resource);
                let code = failure.code();
                self.deny(Denial {
                    caller,
                    route,
                    resource,
                    code,
                })
                .await;
            }
        }
        result
    }

    async fn deny(&self, denial: Denial<'_>) {
        let correlation_id = denial.caller.correlation_id().to_owned();
        if tokio::time::timeout(DENIAL_WAIT, self.denials.denied(denial))
            .await
            .is_err()
        {
            tracing::error!(correlation_id, "a denial was not written in time");
        }
    }
}

fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The request's preconditions, which the answer is compared with.
fn conditions(headers: &HeaderMap) -> HeaderMap {
    let name = http::header::IF_NONE_MATCH;
    headers
        .get_all(&name)
        .iter()
        .map(|value| (name.clone(), value.clone()))
        .collect()
}

/// The client's correlation id as far as it is one: good enough for requests without a context.
fn correlation_id(headers: &HeaderMap) -> String {
    let client = headers
        .get(header::CORRELATION_ID)
        .filter(|value| header::is_correlation_id(value.as_bytes()));
    match client.and_then(|value| value.to_str().ok()) {
        Some(id) => id.to_owned(),
        None => header::new_correlation_id(),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The headers that every answer carries.
fn complete(mut reply: Reply, known: &Known, deadline: Instant) -> Response<Body> {
    let body = Body::of(&mut reply, deadline.into(), &known.correlation_id);
    let mut response = Response::new(body);
    *response.status_mut() = reply.status;
    *response.headers_mut() = reply.headers;
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CORRELATION_ID, &known.correlation_id);
    if reply.replayed {
        set(header::IDEMPOTENCY_REPLAYED, "true");
    }
    let Some(context) = known.caller.as_ref().map(Caller::context) else {
        return response;
    };
    if !context.api_version.is_empty() {
        set(header::API_VERSION, &context.api_version);
    }
    if let Some(limit) = &context.rate_limit {
        set(header::RATE_LIMIT_LIMIT, &limit.limit.to_string());
        set(header::RATE_LIMIT_REMAINING, &limit.remaining.to_string());
        set(header::RATE_LIMIT_RESET, &limit.reset.to_string());
        let (state, policy) = limit.fields();
        set(header::RATE_LIMIT, &state);
        set(header::RATE_LIMIT_POLICY, &policy);
    }
    response
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use http::header::RETRY_AFTER;
    use http_body_util::{BodyExt, Empty};
    use hyper_util::rt::TokioIo;
    use postern_context::{Context, SealingKeys};
    use postern_contract::Family;
    use serde_json::Value;

    use super::*;

    #[derive(Default)]
    struct Denials(Mutex<Vec<String>>);

    impl DenialLog for Denials {
        fn denied<'a>(&'a self, denial: Denial<'a>) -> BoxFuture<'a, ()> {
            self.0
                .lock()
                .unwrap()
                .push(format!("{} {}", denial.route.id, denial.code));
            std::future::ready(()).boxed()
        }
    }

    /// Asks a chain over a real connection; the router misbehaves in each route.
    async fn ask(path: &str, route: &str, family: Family) -> (Response<Value>, Vec<String>) {
        async fn panics(_: Arc<()>, _: Call) -> Result<Reply, Failure> {
            panic!("secret")
        }
        async fn hangs(_: Arc<()>, _: Call) -> Result<Reply, Failure> {
            std::future::pending().await
        }
        async fn refuses(_: Arc<()>, call: Call) -> Result<Reply, Failure> {
            call.caller.need_role(&["superadmin"], "this")?;
            Ok(Reply::empty(StatusCode::OK))
        }
        let sealing =
            SealingKeys::parse("k1 AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=").unwrap();
        let opening = OpeningKeys::parse(&sealing.opening_file(&Family::ALL)).unwrap();
        let router = Router::default()
            .route("health", &Arc::new(()), panics)
            .route("platform.health", &Arc::new(()), hangs)
            .route("platform.info", &Arc::new(()), refuses);
        let denials = Arc::new(Denials::default());
        let times = Times {
            request: Duration::from_millis(50),
            body: Duration::from_secs(1),
        };
        let keys = Arc::new(ArcSwap::from_pointee(opening));
        let chain = Arc::new(Chain::new(
            keys,
            router,
            Arc::clone(&denials) as _,
            None,
            times,
        ));
        let (client, server) = tokio::io::duplex(64 << 10);
        let service = hyper::service::service_fn(move |request| {
            let chain = Arc::clone(&chain);
            async move { Ok::<_, std::convert::Infallible>(chain.answer(request).await) }
        });
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(server), service),
        );
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .unwrap();
        tokio::spawn(connection);
        let context = Context {
            route: route.into(),
            method: "GET".into(),
            correlation_id: "corr-1234".into(),
            ..Context::default()
        };
        let request = Request::get(path)
            .header(
                header::POSTERN_CONTEXT,
                sealing.seal(family, context, now_ms()),
            )
            .body(Empty::<Bytes>::new())
            .unwrap();
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let denied = denials.0.lock().unwrap().clone();
        let body = serde_json::from_slice(&body).unwrap();
        (Response::from_parts(parts, body), denied)
    }

    fn code(answer: &Response<Value>) -> (u16, &str) {
        let code = answer.body().pointer("/error/code").and_then(Value::as_str);
        (answer.status().as_u16(), code.unwrap_or_default())
    }

    #[tokio::test]
    async fn a_panic_costs_one_request_and_tells_nothing() {
        let (answer, _) = ask("/health", "health", Family::Platform).await;
        assert_eq!(code(&answer), (500, "INTERNAL"));
        assert_eq!(
            answer.headers().get(header::CORRELATION_ID).unwrap(),
            "corr-1234"
        );
        assert!(!answer.body().to_string().contains("secret"));
    }

    #[tokio::test]
    async fn a_read_past_its_deadline_is_given_up() {
        let (answer, _) = ask("/v1/platform/health", "platform.health", Family::Platform).await;
        assert_eq!(code(&answer), (504, "BACKEND_UNAVAILABLE"));
        assert!(answer.headers().contains_key(RETRY_AFTER));
    }

    #[tokio::test]
    async fn a_denial_goes_to_the_trail() {
        let (answer, denied) = ask("/v1/platform/info", "platform.info", Family::Platform).await;
        assert_eq!(code(&answer), (403, "ROLE_DENIED"));
        assert_eq!(denied, ["platform.info ROLE_DENIED"]);
    }

    #[tokio::test]
    async fn a_family_that_is_off_is_said_to_be() {
        let (answer, _) = ask("/v1/tenants", "tenants.list", Family::Tenants).await;
        assert_eq!(code(&answer), (503, "FAMILY_UNAVAILABLE"));
    }
}
