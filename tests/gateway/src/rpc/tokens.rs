//! Configuration tokens: shared by everything that runs in the gateway, lost
//! when the runner dies, prepared one at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postern_wire::frame::FrameType;
use postern_wire::message::{Entry, Message, PrepareConfReq};
use tokio::time::{Instant, sleep, timeout};

use super::{Rpc, RpcError};
use crate::clock::Times;

/// `APISIX_CONF_EXPIRE_TIME`, seconds.
pub const EXPIRE: u32 = 3600;
/// A token is used for this part of it.
const EARLY: f64 = 0.9;
/// resty.lock: how long to wait for it, and how long it is held at most.
const LOCK_WAIT: f64 = 5.0;
const LOCK_HELD: f64 = 30.0;
/// Tokens kept; the dictionary of 1 MB holds about so many.
const MOST: usize = 8192;

/// The shared dictionary and its lock.
#[derive(Debug)]
pub struct Tokens {
    known: Mutex<HashMap<String, (u32, Instant)>>,
    prepare: Arc<tokio::sync::Mutex<()>>,
    lifetime: Duration,
}

impl Tokens {
    /// An empty one.
    #[must_use]
    pub fn new(times: Times) -> Self {
        Self {
            known: Mutex::default(),
            prepare: Arc::default(),
            lifetime: times.scaled(f64::from(EXPIRE) * EARLY),
        }
    }

    fn get(&self, key: &str) -> Option<u32> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, until) = known.get(key)?;
        (Instant::now() < *until).then_some(*token)
    }

    fn store(&self, key: &str, token: u32) {
        let now = Instant::now();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, (_, until)| now < *until);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(key.to_owned(), (token, now + self.lifetime));
    }

    /// Forgets all of them.
    pub fn flush(&self) {
        tracing::warn!("flush conf token in shared dict");
        self.known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Rpc {
    /// The token of a configuration, prepared if need be: on a connection of its
    /// own, while everybody else without a token waits.
    pub async fn token(&self, key: &str, conf: &[Entry]) -> Result<u32, RpcError> {
        if let Some(token) = self.tokens.get(key) {
            return Ok(token);
        }
        let mut connection = self.connect().await?;
        let lock = Arc::clone(&self.tokens.prepare).lock_owned();
        let Ok(lock) = timeout(self.times.scaled(LOCK_WAIT), lock).await else {
            return Err(RpcError::Failed(
                "failed to acquire the lock: timeout".into(),
            ));
        };
        if let Some(token) = self.tokens.get(key) {
            self.keep(connection);
            return Ok(token);
        }
        let prepared = async {
            let request = Message::PrepareConfReq(PrepareConfReq {
                conf: conf.to_vec(),
                key: key.as_bytes().to_vec(),
            });
            connection.send(&request).await?;
            match connection.receive(&[FrameType::PrepareConf]).await? {
                Message::PrepareConfResp { conf_token } => {
                    self.tokens.store(key, conf_token);
                    Ok(conf_token)
                }
                other => Err(RpcError::Failed(format!("unexpected answer {other:?}"))),
            }
        };
        let expire = async {
            sleep(self.times.scaled(LOCK_HELD)).await;
            drop(lock);
            std::future::pending().await
        };
        let token = tokio::select! {
            token = prepared => token?,
            token = expire => token,
        };
        self.keep(connection);
        Ok(token)
    }
}
