//! The plugins a process knows, with what runs beside them.
//!
//! A composition root builds one [`Registry`] from the [`RunnerConfig`](crate::RunnerConfig):
//! [`crate::plugins::house`] for our own binary, a function of the same form for a
//! binary with further plugins.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::chain::{Bind, Chain};
use crate::legacy::Legacies;
use crate::plugin::{ConfigError, Plugin};

/// Makes the plugins of a process from its configuration.
///
/// Called inside a tokio runtime, by the worker and by `check`, `schema` and
/// `explain`; it may read files but must not wait on the network. A plugin whose
/// settings are absent is registered all the same and refuses in
/// [`Plugin::check`], so that only the routes that use it are closed.
pub type Compose = fn(&crate::RunnerConfig) -> anyhow::Result<Registry>;

/// Makes the plugins and sees to it that every section of the file was wanted.
pub(crate) fn compose(compose: Compose, config: &crate::RunnerConfig) -> anyhow::Result<Registry> {
    let registry = compose(config)?;
    config.plugins.unread()?;
    Ok(registry)
}

/// Plugins by name, background tasks, readiness.
#[derive(Default)]
pub struct Registry {
    plugins: BTreeMap<&'static str, Box<dyn Bind>>,
    tasks: Mutex<Vec<Task>>,
    ready: Vec<(&'static str, Ready)>,
    legacies: Legacies,
    commands: BTreeMap<&'static str, Command>,
}

/// What the admin endpoint answers to a command: a status and a line of text.
pub type Answer = (StatusCode, String);

type Command = Box<dyn Fn(Bytes) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Says what something still waits for.
type Ready = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

struct Task {
    name: &'static str,
    start: Box<dyn FnOnce(CancellationToken) -> BoxFuture<'static, ()> + Send>,
}

impl Registry {
    /// A registry without plugins.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a plugin known under its name; a second one of that name takes its place.
    #[must_use]
    pub fn with<P: Plugin>(self, plugin: P) -> Self {
        self.with_shared(Arc::new(plugin))
    }

    /// The same for a plugin that others hold too.
    #[must_use]
    pub fn with_shared<P: Plugin>(mut self, plugin: Arc<P>) -> Self {
        self.plugins.insert(P::NAME, Box::new(plugin));
        self
    }

    /// A task that runs beside the requests for as long as the worker lives (a key
    /// refresh, a watch). Started in the worker and in `explain` only; asked to end by
    /// the token. A task that panics is logged and not started again.
    #[must_use]
    pub fn with_task<F, Fut>(self, name: &'static str, start: F) -> Self
    where
        F: FnOnce(CancellationToken) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let start = Box::new(move |stop| -> BoxFuture<'static, ()> { Box::pin(start(stop)) });
        self.tasks().push(Task { name, start });
        self
    }

    /// Something `/readyz` waits for: says why it is not ready yet. Not asked by requests.
    #[must_use]
    pub fn with_readiness(
        mut self,
        name: &'static str,
        ready: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.ready.push((name, Box::new(ready)));
        self
    }

    /// Something an operator can have done: a `POST` to this path of the admin endpoint,
    /// with a body of at most 16 KiB. Each worker is told by itself.
    #[must_use]
    pub fn with_command<F, Fut>(mut self, path: &'static str, command: F) -> Self
    where
        F: Fn(Bytes) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let command =
            Box::new(move |body| -> BoxFuture<'static, Answer> { Box::pin(command(body)) });
        self.commands.insert(path, command);
        self
    }

    /// The paths of commands.
    pub(crate) fn commands(&self) -> impl Iterator<Item = &'static str> {
        self.commands.keys().copied()
    }

    /// Has a command done; `None` if there is none of this path.
    pub(crate) fn command(&self, path: &str, body: Bytes) -> Option<BoxFuture<'static, Answer>> {
        Some(self.commands.get(path)?(body))
    }

    /// Something that outlives the worker (SIGHUP): `leave` is asked for it just before a
    /// successor takes over, which hears it through `take_over` before its first request.
    /// Not kept when a worker crashes.
    #[must_use]
    pub fn with_legacy(
        mut self,
        name: &'static str,
        leave: impl Fn() -> Bytes + Send + Sync + 'static,
        take_over: impl Fn(&[u8]) + Send + Sync + 'static,
    ) -> Self {
        self.legacies
            .add(name, Box::new(leave), Box::new(take_over));
        self
    }

    pub(crate) fn take_legacies(&mut self) -> Legacies {
        std::mem::take(&mut self.legacies)
    }

    /// The known names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.plugins.keys().copied()
    }

    /// The JSON Schema of a plugin's configuration.
    #[must_use]
    pub fn schema(&self, name: &str) -> Option<schemars::Schema> {
        self.plugins.get(name).map(|plugin| plugin.schema())
    }

    /// Makes a chain of a route's `conf`: names with configurations, in order.
    ///
    /// # Errors
    /// Every entry that cannot be served, by its position.
    pub fn chain<'c>(
        &self,
        conf: impl IntoIterator<Item = (&'c str, &'c str)>,
    ) -> Result<Chain, Vec<ChainError>> {
        let (mut links, mut errors) = (Vec::new(), Vec::new());
        for (position, (name, config)) in conf.into_iter().enumerate() {
            match self.link(name, config) {
                Ok(link) => links.push(link),
                Err(cause) => errors.push(ChainError {
                    position,
                    plugin: name.to_owned(),
                    cause,
                }),
            }
        }
        if errors.is_empty() {
            Ok(Chain::new(links))
        } else {
            Err(errors)
        }
    }

    fn link(&self, name: &str, config: &str) -> Result<crate::chain::Link, ConfigError> {
        let Some(plugin) = self.plugins.get(name) else {
            let known = self.names().collect::<Vec<_>>().join(", ");
            return Err(ConfigError::new(
                "",
                format!("no plugin has this name; there are: {known}"),
            ));
        };
        plugin.bind(config)
    }

    /// Starts the background tasks, which end with `stop`, and gives who knows when they have.
    pub(crate) fn start_tasks(&self, stop: &CancellationToken) -> TaskTracker {
        let running = TaskTracker::new();
        for Task { name, start } in std::mem::take(&mut *self.tasks()) {
            let task = running.spawn(start(stop.clone()));
            let stop = stop.clone();
            tokio::spawn(async move {
                if task.await.is_err() && !stop.is_cancelled() {
                    tracing::error!(
                        task = name,
                        "a background task panicked; it is not running any more"
                    );
                }
            });
        }
        running.close();
        running
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Vec<Task>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that is not ready, with the reason.
    pub(crate) fn unready(&self) -> Vec<(&'static str, String)> {
        let reasons = self.ready.iter().map(|(name, ready)| (*name, ready()));
        reasons
            .filter_map(|(name, ready)| ready.err().map(|reason| (name, reason)))
            .collect()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

/// An entry of `conf` that cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("conf[{position}] ({plugin}): {cause}")]
pub struct ChainError {
    /// Its place in `conf`, from 0.
    pub position: usize,
    /// The name it calls.
    pub plugin: String,
    /// What is wrong, with the field.
    pub cause: ConfigError,
}
