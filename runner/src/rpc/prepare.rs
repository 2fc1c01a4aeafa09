//! Routes' configurations: from a prepare-conf frame to a chain behind a token.
//!
//! A worker only keeps chains it has built. Which token stands for which `conf` is
//! the [`Ledger`]'s to say: the supervisor's table, so that a new worker knows what
//! the one before it was told, and the gateway keeps its tokens.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use postern_wire::read::PrepareConf;

use super::tokens::{Tokens, pack, unpack};
use crate::chain::Chain;
use crate::config::LimitsConfig;
use crate::registry::Registry;
use crate::worker::control::Asker;

/// Who gives out tokens.
pub(crate) enum Ledger {
    /// This process: in tests, and wherever there is no supervisor.
    Own(Mutex<Tokens>),
    /// The supervisor, at the other end of the control socket.
    Supervisor(Asker),
}

impl Ledger {
    async fn assign(&self, conf: &Bytes) -> Option<u32> {
        match self {
            Self::Own(tokens) => Some(lock(tokens).assign(conf)),
            Self::Supervisor(asker) => asker.assign(conf.clone()).await,
        }
    }

    async fn get(&self, token: u32) -> Option<Bytes> {
        match self {
            Self::Own(tokens) => lock(tokens).get(token).cloned(),
            Self::Supervisor(asker) => asker.find(token).await,
        }
    }
}

fn lock(tokens: &Mutex<Tokens>) -> std::sync::MutexGuard<'_, Tokens> {
    tokens.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a token stands for: a chain, or a configuration that closes its routes.
pub(crate) type Prepared = Result<Chain, Misconfigured>;

/// A `conf` that cannot be served. Its routes answer 500 `GATEWAY_MISCONFIGURED`.
#[derive(Debug)]
pub(crate) struct Misconfigured {
    /// One line an error, with entry and field.
    pub(crate) errors: Vec<String>,
}

/// Chains by token.
pub(crate) struct Configurations {
    registry: Registry,
    ledger: Ledger,
    limits: LimitsConfig,
    chains: RwLock<HashMap<u32, Arc<Prepared>, ahash::RandomState>>,
}

impl Configurations {
    pub(crate) fn new(registry: Registry, ledger: Ledger, limits: &LimitsConfig) -> Self {
        Self {
            registry,
            ledger,
            limits: limits.clone(),
            chains: RwLock::default(),
        }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Makes a route's `conf` known and gives its token. Never waits on the network.
    /// `None` if the supervisor is gone, and this process about to be.
    pub(crate) async fn prepare(&self, call: &PrepareConf<'_>) -> Option<u32> {
        let route = String::from_utf8_lossy(call.key());
        let entries = || {
            call.conf()
                .map(|(name, value)| (name, value.unwrap_or_default()))
        };
        let size: usize = entries()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let conf = if size > self.limits.conf_bytes {
            // What is too long to keep is kept as what it is: something too long.
            pack([(TOO_LONG, size.to_string().as_bytes())].into_iter())
        } else {
            pack(entries())
        };
        let token = self.ledger.assign(&conf).await?;
        if let Err(Misconfigured { errors }) = &*self.build(token, &conf) {
            for error in errors {
                tracing::error!(%route, %error, "the route answers 500 GATEWAY_MISCONFIGURED until its configuration is mended");
            }
        }
        Some(token)
    }

    /// The chain behind a token, if this worker has built it.
    pub(crate) fn get(&self, token: u32) -> Option<Arc<Prepared>> {
        self.chains
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&token)
            .cloned()
    }

    /// The chain behind a token that a worker before this one was told of.
    pub(crate) async fn find(&self, token: u32) -> Option<Arc<Prepared>> {
        let conf = self.ledger.get(token).await?;
        Some(self.build(token, &conf))
    }

    /// Builds a chain, once for each token.
    fn build(&self, token: u32, conf: &[u8]) -> Arc<Prepared> {
        if let Some(built) = self.get(token) {
            return built;
        }
        let attempt = catch_unwind(AssertUnwindSafe(|| self.chain(conf)));
        let built = Arc::new(attempt.unwrap_or_else(|_| {
            Err(Misconfigured {
                errors: vec!["a plugin panicked over its configuration".into()],
            })
        }));
        let mut chains = self.chains.write().unwrap_or_else(PoisonError::into_inner);
        if chains.len() >= self.limits.configurations {
            // The ledger still has what is dropped here; building anew is cheap and rare.
            chains.clear();
        }
        chains.insert(token, Arc::clone(&built));
        metrics::gauge!("postern_configurations")
            .set(u32::try_from(chains.len()).unwrap_or(u32::MAX));
        built
    }

    fn chain(&self, conf: &[u8]) -> Prepared {
        let broken = |error: String| Misconfigured {
            errors: vec![error],
        };
        let entries = unpack(conf).ok_or_else(|| broken("conf: cannot be read".into()))?;
        if let [(TOO_LONG, size)] = entries[..] {
            let (size, limit) = (String::from_utf8_lossy(size), self.limits.conf_bytes);
            return Err(broken(format!(
                "conf: {size} bytes, more than limits.confBytes ({limit})"
            )));
        }
        let text = |bytes| {
            std::str::from_utf8(bytes)
                .map_err(|_| broken("conf: names and values must be UTF-8".into()))
        };
        let entries: Result<Vec<_>, _> = entries
            .into_iter()
            .map(|(name, value)| Ok((text(name)?, text(value)?)))
            .collect();
        self.registry
            .chain(entries?)
            .map_err(|errors| Misconfigured {
                errors: errors.iter().map(ToString::to_string).collect(),
            })
    }
}

/// No plugin has this name: what stands in the ledger for a `conf` above the limit.
const TOO_LONG: &[u8] = b"\0too long";
