//! The routes table: read once from `routes.toml`, matched by the runner and the handlers.

mod find;
mod load;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use http::Method;
use serde::{Deserialize, Serialize};

pub use find::{Match, Params};
pub use load::LoadError;

/// A data family. The runner seals each request's context for exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Health, info, `OpenAPI`, the platform's audit trail.
    Platform,
    /// Tenants.
    Tenants,
    /// Workspaces.
    Workspaces,
    /// Tokens and the signup policy.
    Auth,
    /// Realms, clients, roles and users.
    Iam,
    /// `PostgreSQL` rows.
    Postgres,
    /// `MongoDB` documents.
    Mongo,
    /// Kafka events.
    Events,
    /// Functions.
    Functions,
    /// S3 objects.
    Storage,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 10] = [
        Family::Platform,
        Family::Tenants,
        Family::Workspaces,
        Family::Auth,
        Family::Iam,
        Family::Postgres,
        Family::Mongo,
        Family::Events,
        Family::Functions,
        Family::Storage,
    ];

    /// The name, as in the path.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Family::Platform => "platform",
            Family::Tenants => "tenants",
            Family::Workspaces => "workspaces",
            Family::Auth => "auth",
            Family::Iam => "iam",
            Family::Postgres => "postgres",
            Family::Mongo => "mongo",
            Family::Events => "events",
            Family::Functions => "functions",
            Family::Storage => "storage",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Family::ALL
            .into_iter()
            .find(|family| family.as_str() == text)
            .ok_or_else(|| format!("no family is called {text:?}"))
    }
}

/// A rate profile: GCRA with one request per 60 s / `rate` and a capacity of `burst`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Its name, for keys and headers.
    #[serde(skip)]
    pub name: String,
    /// Requests a minute.
    pub rate: u32,
    /// How many pass at once from full.
    pub burst: u32,
}

/// Who may come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Anybody; API version and correlation id are optional.
    Public,
    /// A verified token is needed.
    #[default]
    Token,
}

/// One piece of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Literal(String),
    /// One segment, named.
    Param(String),
    /// Everything that is left, one segment at least, named.
    Tail(String),
}

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Route {
    /// Names the route in contexts, metrics, audit entries and `OpenAPI`.
    pub id: String,
    /// GET stands for HEAD too.
    pub method: Method,
    /// As written: `/v1/tenants/:tenantId`.
    pub path: String,
    /// `path`, cut.
    pub segments: Vec<Segment>,
    /// Who serves it.
    pub family: Family,
    /// Public or by token.
    pub access: Access,
    /// The scope that a token needs.
    pub scope: Option<String>,
    /// One of these is needed; empty: any.
    pub roles: Vec<String>,
    /// What the workspace in the path must have.
    pub capability: Option<String>,
    /// The rate profile.
    pub profile: Profile,
    /// Bytes.
    pub body_limit: u64,
    /// What a body may be; `*/*` for anything.
    pub media_types: Vec<String>,
    /// Whether an Idempotency-Key is asked for.
    pub idempotent: bool,
}

impl Route {
    /// Whether no token is needed.
    #[must_use]
    pub fn is_public(&self) -> bool {
        self.access == Access::Public
    }

    /// Whether requests can change something.
    #[must_use]
    pub fn is_mutation(&self) -> bool {
        !matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
    }

    /// Whether a body of this media type (without parameters, any case) is taken.
    #[must_use]
    pub fn takes(&self, media_type: &str) -> bool {
        self.media_types
            .iter()
            .any(|taken| taken == "*/*" || taken.eq_ignore_ascii_case(media_type))
    }
}

/// All routes.
#[derive(Debug)]
pub struct RouteTable {
    routes: Vec<Route>,
    profiles: BTreeMap<String, Profile>,
    tree: find::Tree,
}

impl RouteTable {
    /// Every route, in the order of the file.
    #[must_use]
    pub fn all(&self) -> &[Route] {
        &self.routes
    }

    /// The routes of one family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = &Route> {
        self.routes
            .iter()
            .filter(move |route| route.family == family)
    }

    /// The route with this id.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.id == id)
    }

    /// Every rate profile by name.
    #[must_use]
    pub fn profiles(&self) -> &BTreeMap<String, Profile> {
        &self.profiles
    }
}

static TABLE: LazyLock<RouteTable> = LazyLock::new(|| {
    #[expect(
        clippy::expect_used,
        reason = "the file is compiled in and a test parses it"
    )]
    RouteTable::parse(include_str!("../routes.toml")).expect("routes.toml is valid")
});

/// The table of this build.
#[must_use]
pub fn routes() -> &'static RouteTable {
    &TABLE
}
