//! The clients of one key, and what they were told.

use std::time::Duration;

use anyhow::{Result, bail};
use futures::future::join_all;
use postern_harness::api::Client;
use postern_harness::http::Reply;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

use super::plan::{Action, Verdict};

/// A client that hears nothing for so long asks again.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than any fault lasts, with a claim's lease after it, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// An answer that stands: what was told of the key, and with which payload.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) payload: &'static str,
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    pub(super) replayed: bool,
}

/// What one key's clients saw.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) action: Action,
    pub(super) told: Vec<Told>,
    /// What should not have been said at all.
    pub(super) wrong: Vec<String>,
    pub(super) requests: usize,
}

const OURS: &str = "ours";
const RIVAL: &str = "rival";

/// What an answer means to a client.
enum Heard {
    Stands(Told),
    /// The key was used with another payload.
    Reused,
    /// Ask again.
    NotNow,
    Wrong(String),
}

impl Life {
    pub(super) fn new(action: Action) -> Self {
        Self {
            action,
            told: Vec::new(),
            wrong: Vec::new(),
            requests: 0,
        }
    }

    /// All that the plan says, in a storm.
    pub(super) async fn live(mut self, client: &Client, path: &str) -> Self {
        let mut first: Vec<_> = vec![OURS; self.action.at_once];
        if self.action.rival {
            first.push(RIVAL);
        }
        if let Some(leaves) = self.action.leaves {
            let asked = first.iter().map(|payload| self.ask(client, path, payload));
            // Whoever has answered by then is not heard, either.
            let _ = timeout(leaves, join_all(asked)).await;
            self.requests += first.len();
            return self;
        }
        let asked = first.iter().map(|payload| self.ask(client, path, payload));
        let heard = join_all(asked).await;
        self.requests += first.len();
        for heard in heard {
            self.note(heard);
        }
        if let Err(error) = self.insist(client, path).await {
            // After the storm it is asked once more.
            eprintln!("{}: {error:#}", self.action.name);
            return self;
        }
        if self.action.again {
            self.until(client, path, self.winner(), false).await;
        }
        if self.action.changed {
            let other = if self.winner() == OURS { RIVAL } else { OURS };
            self.until(client, path, other, true).await;
        }
        self
    }

    /// Asks until something stands.
    pub(super) async fn insist(&mut self, client: &Client, path: &str) -> Result<()> {
        let end = Instant::now() + LIMIT;
        let mut payload = OURS;
        while self.told.is_empty() {
            if Instant::now() > end {
                bail!("no answer within {LIMIT:?}");
            }
            sleep(self.action.pause).await;
            let heard = self.ask(client, path, payload).await;
            self.requests += 1;
            if matches!(heard, Heard::Reused) {
                // The rival was first; it is the one to be answered.
                payload = RIVAL;
            }
            self.note(heard);
        }
        Ok(())
    }

    /// Whose payload it was that was carried out.
    fn winner(&self) -> &'static str {
        self.told.first().map_or(OURS, |told| told.payload)
    }

    /// Asks until it is told something for good: the outcome again, or that the key was
    /// used for something else.
    async fn until(&mut self, client: &Client, path: &str, payload: &'static str, reused: bool) {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let heard = self.ask(client, path, payload).await;
            self.requests += 1;
            match heard {
                Heard::NotNow => sleep(self.action.pause).await,
                Heard::Reused if reused => return,
                Heard::Reused => {
                    self.wrong
                        .push("its own payload is said to be another one's".into());
                    return;
                }
                heard => {
                    self.note(heard);
                    return;
                }
            }
        }
    }

    fn note(&mut self, heard: Heard) {
        match heard {
            Heard::Stands(told) => self.told.push(told),
            Heard::Wrong(wrong) => self.wrong.push(wrong),
            // A rival is among the first.
            Heard::Reused | Heard::NotNow => {}
        }
    }

    async fn ask(&self, client: &Client, path: &str, payload: &'static str) -> Heard {
        let verdict = match self.action.verdict {
            Verdict::Accept => "accept",
            Verdict::Refuse => "refuse",
        };
        let body = json!({"action": self.action.name, "payload": payload, "verdict": verdict});
        let call = client.post(path, &body).key(&self.action.name);
        match timeout(PATIENCE, call.into_future()).await {
            Ok(Ok(reply)) => self.read(payload, &reply),
            // The connection broke, or nothing came.
            Ok(Err(_)) | Err(_) => Heard::NotNow,
        }
    }

    fn read(&self, payload: &'static str, reply: &Reply) -> Heard {
        let code = reply.text_at("/error/code").unwrap_or_default();
        let stands = match (self.action.verdict, reply.status) {
            (Verdict::Accept, 201) => true,
            (Verdict::Refuse, 409) => code == "DUPLICATE_KEY",
            _ => false,
        };
        match (reply.status, code.as_str()) {
            _ if stands => Heard::Stands(Told {
                payload,
                status: reply.status,
                body: reply.body.to_vec(),
                replayed: reply.header("x-idempotency-replayed") == Some("true"),
            }),
            (422, "IDEMPOTENCY_KEY_REUSED") => Heard::Reused,
            (409, "IDEMPOTENCY_IN_PROGRESS" | "SERIALIZATION_FAILURE")
            | (429, "RATE_LIMITED")
            | (502..=504, "BACKEND_UNAVAILABLE" | "STATEMENT_TIMEOUT") => Heard::NotNow,
            _ => Heard::Wrong(format!("answered by {reply:?}")),
        }
    }
}
