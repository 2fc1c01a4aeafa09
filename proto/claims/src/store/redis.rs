//! Claims in Redis, Valkey, or a cluster of either: a hash a claim, which lapses by its
//! expiry. Each call is one script over one key, so a cluster needs no more.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use postern_redis::{Connection, Servers};
use redis::{FromRedisValue, RedisResult, Script};

use super::{Claim, ClaimError, Holder, LEASE};

/// KEYS: the claim. ARGV: holder, lease in ms. Ours, or who was there first. A script
/// that is repeated because its answer was lost finds the claim of its own holder.
const CLAIM: &str = r"
local found = redis.call('HMGET', KEYS[1], 'holder', 'fingerprint', 'outcome')
if found[2] then return {0, found[2], found[3]} end
if found[1] and found[1] ~= ARGV[1] then return {0} end
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return {1}";

/// ARGV: holder, lease in ms. 1 if it was still held.
const EXTEND: &str = r"
local found = redis.call('HMGET', KEYS[1], 'holder', 'fingerprint')
if found[2] or found[1] ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// ARGV: ms until it is forgotten, fingerprint, perhaps an outcome.
const DONE: &str = r"
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'fingerprint', ARGV[2])
if ARGV[3] then redis.call('HSET', KEYS[1], 'outcome', ARGV[3]) end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1";

/// ARGV: holder.
const RELEASE: &str = r"
local found = redis.call('HMGET', KEYS[1], 'holder', 'fingerprint')
if found[2] or found[1] ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])";

pub(super) struct Redis {
    servers: Servers,
    /// One for all calls, which it pipelines; made when it is needed.
    connection: Mutex<Option<Connection>>,
    /// Held by whoever connects, so that one does.
    connecting: tokio::sync::Mutex<()>,
    scripts: Scripts,
}

struct Scripts {
    claim: Script,
    extend: Script,
    done: Script,
    release: Script,
}

/// Whether it is ours now; else the fingerprint and outcome of whoever was first.
type Found = (i64, Option<Vec<u8>>, Option<Vec<u8>>);

impl Redis {
    pub(super) fn new(servers: Servers) -> Self {
        Self {
            servers,
            connection: Mutex::default(),
            connecting: tokio::sync::Mutex::default(),
            scripts: Scripts {
                claim: Script::new(CLAIM),
                extend: Script::new(EXTEND),
                done: Script::new(DONE),
                release: Script::new(RELEASE),
            },
        }
    }

    pub(super) async fn claim(
        &self,
        scope: &[u8; 32],
        holder: Holder,
    ) -> Result<Claim, ClaimError> {
        let mut script = self.scripts.claim.prepare_invoke();
        script
            .key(key(scope))
            .arg(&holder.0)
            .arg(milliseconds(LEASE));
        let found: Vec<redis::Value> = self.run(&script).await?;
        let mut found = found.into_iter();
        let mut next = || found.next().unwrap_or(redis::Value::Nil);
        let (mine, fingerprint, outcome): Found = (
            i64::from_redis_value(next()).map_err(redis::RedisError::from)?,
            Option::from_redis_value(next()).map_err(redis::RedisError::from)?,
            Option::from_redis_value(next()).map_err(redis::RedisError::from)?,
        );
        Ok(match (mine, fingerprint.map(<[u8; 32]>::try_from)) {
            (1, _) => Claim::New(holder),
            (_, Some(Ok(fingerprint))) => Claim::Done {
                fingerprint,
                outcome,
            },
            _ => Claim::Running,
        })
    }

    pub(super) async fn extend(
        &self,
        scope: &[u8; 32],
        holder: Holder,
        lease: Duration,
    ) -> Result<bool, ClaimError> {
        let mut script = self.scripts.extend.prepare_invoke();
        script
            .key(key(scope))
            .arg(&holder.0)
            .arg(milliseconds(lease));
        Ok(self.run::<i64>(&script).await? == 1)
    }

    pub(super) async fn done(
        &self,
        scope: &[u8; 32],
        fingerprint: &[u8; 32],
        outcome: Option<&[u8]>,
        remaining: Duration,
    ) -> Result<(), ClaimError> {
        let mut script = self.scripts.done.prepare_invoke();
        script
            .key(key(scope))
            .arg(milliseconds(remaining))
            .arg(fingerprint.as_slice());
        if let Some(outcome) = outcome {
            script.arg(outcome);
        }
        self.run::<i64>(&script).await?;
        Ok(())
    }

    pub(super) async fn release(&self, scope: &[u8; 32], holder: Holder) -> Result<(), ClaimError> {
        let mut script = self.scripts.release.prepare_invoke();
        script.key(key(scope)).arg(&holder.0);
        self.run::<i64>(&script).await?;
        Ok(())
    }

    /// The next call connects anew: what the connection waits for may never come.
    pub(super) fn forget_connection(&self) {
        *self.current() = None;
    }

    /// Runs a script that may be run twice: a connection that broke since its last use is
    /// replaced once.
    async fn run<T: FromRedisValue>(
        &self,
        script: &redis::ScriptInvocation<'_>,
    ) -> Result<T, ClaimError> {
        let mut again = true;
        loop {
            match self.connection().await?.run(script).await {
                Err(error) if error.is_io_error() || error.is_connection_dropped() => {
                    self.forget_connection();
                    if !std::mem::take(&mut again) {
                        return Err(error.into());
                    }
                }
                answered => return Ok(answered?),
            }
        }
    }

    async fn connection(&self) -> RedisResult<Connection> {
        let there = self.current().clone();
        if let Some(connection) = there {
            return Ok(connection);
        }
        let _one = self.connecting.lock().await;
        // Somebody else may have connected meanwhile.
        let there = self.current().clone();
        if let Some(connection) = there {
            return Ok(connection);
        }
        let connection = self.servers.connect().await?;
        *self.current() = Some(connection.clone());
        Ok(connection)
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Redis {
    /// Without the servers: their URL may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

/// `postern:claim:` and the scope in hexadecimal digits.
fn key(scope: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    let mut key = String::with_capacity(14 + 64);
    key.push_str("postern:claim:");
    for byte in scope {
        // Writing to a string does not fail.
        let _ = write!(key, "{byte:02x}");
    }
    key
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
