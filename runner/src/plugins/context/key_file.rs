//! The master keys' file, read at the start and again whenever it changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use postern_context::SealingKeys;
use serde::Deserialize;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// The section `context` of the runner's configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ContextSettings {
    /// Master keys, one a line: `<kid> <base64 of 32 bytes>`. The first seals.
    pub key_file: PathBuf,
    /// How often the file is looked at, in seconds.
    #[serde(default = "default_reload")]
    pub reload_seconds: u64,
}

fn default_reload() -> u64 {
    5
}

/// Keys with the file they come from.
pub(super) struct KeyFile {
    path: PathBuf,
    reload: Duration,
    /// What was last read into keys, and the keys.
    current: ArcSwap<(String, SealingKeys)>,
}

impl KeyFile {
    pub(super) fn open(settings: ContextSettings) -> anyhow::Result<Self> {
        let ContextSettings {
            key_file: path,
            reload_seconds,
        } = settings;
        anyhow::ensure!(
            reload_seconds > 0,
            "plugins.context.reloadSeconds: must be above 0"
        );
        let named = || format!("plugins.context.keyFile: {}", path.display());
        let text = std::fs::read_to_string(&path).with_context(named)?;
        let keys = SealingKeys::parse(&text).with_context(named)?;
        let current = ArcSwap::from_pointee((text, keys));
        Ok(Self {
            path,
            reload: Duration::from_secs(reload_seconds),
            current,
        })
    }

    /// The keys as of the last look at the file.
    pub(super) fn current(&self) -> impl std::ops::Deref<Target = SealingKeys> {
        Current(self.current.load())
    }

    /// Reads the file again and again; a broken one changes nothing.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut healthy = true;
        while stop.run_until_cancelled(sleep(self.reload)).await.is_some() {
            healthy = match self.read_again().await {
                Ok(()) => true,
                Err(error) => {
                    if healthy {
                        tracing::error!(path = %self.path.display(), %error, "the key file cannot be used; the keys read before stay");
                    }
                    false
                }
            };
        }
    }

    async fn read_again(&self) -> anyhow::Result<()> {
        let text = tokio::fs::read_to_string(&self.path).await?;
        if text != self.current.load().0 {
            let keys = SealingKeys::parse(&text)?;
            self.current.store(Arc::new((text, keys)));
            tracing::info!(path = %self.path.display(), "the key file changed; its first key seals from now on");
        }
        Ok(())
    }
}

struct Current(arc_swap::Guard<Arc<(String, SealingKeys)>>);

impl std::ops::Deref for Current {
    type Target = SealingKeys;

    fn deref(&self) -> &SealingKeys {
        &self.0.1
    }
}
