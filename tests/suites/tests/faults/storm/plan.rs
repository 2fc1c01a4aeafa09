//! What happens in a run, as far as a seed decides it: the actions with their retries,
//! duplicates and changed payloads, and the faults with their order and length. When the
//! machine does what of it is its own.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

/// One key and what its clients do with it.
#[derive(Debug, Clone)]
pub(super) struct Action {
    pub(super) name: String,
    /// What the family is to say of it.
    pub(super) verdict: Verdict,
    /// Requests at the same time, to begin with.
    pub(super) at_once: usize,
    /// Whether one more among them has another payload.
    pub(super) rival: bool,
    /// Whether the clients leave after so long and never ask again.
    pub(super) leaves: Option<Duration>,
    /// Whether it is asked again once it was answered.
    pub(super) again: bool,
    /// Whether it is asked again with another payload then.
    pub(super) changed: bool,
    /// Between one attempt and the next.
    pub(super) pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    Refuse,
}

impl Action {
    /// The `n`th of a run.
    pub(super) fn new(seed: u64, n: usize) -> Self {
        let mut dice = dice(seed, 1 + n as u64);
        let mut chance = |percent: u32| dice.random_range(0..100) < percent;
        let verdict = if chance(12) {
            Verdict::Refuse
        } else {
            Verdict::Accept
        };
        let (rival, leaves, again, changed) = (chance(8), chance(8), chance(30), chance(20));
        Self {
            name: format!("{seed}-{n}"),
            verdict,
            at_once: *[1, 1, 1, 2, 2, 3].choose(&mut dice).unwrap_or(&1),
            rival,
            leaves: leaves.then(|| Duration::from_millis(dice.random_range(1..60))),
            again,
            changed,
            pause: Duration::from_millis(dice.random_range(80..400)),
        }
    }
}

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Fault {
    WorkerKilled,
    WorkerPaused,
    SupervisorKilled,
    GatewayKilled,
    GatewayPaused,
    FamilyKilled,
    FamilyPaused,
    HandlersKilled,
    PostgresKilled,
    PostgresPaused,
    BackendKilled,
    RedisKilled,
    RedisPaused,
    ClaimsEmptied,
    ClaimsCut,
    ClaimsSwallowed,
    EffectsCut,
    EffectsSwallowed,
    UpstreamCut,
    UpstreamSwallowed,
}

/// Of the processes between the client and the stores.
pub(super) const OF_PROCESSES: [Fault; 8] = [
    Fault::WorkerKilled,
    Fault::FamilyKilled,
    Fault::GatewayKilled,
    Fault::WorkerPaused,
    Fault::HandlersKilled,
    Fault::FamilyPaused,
    Fault::SupervisorKilled,
    Fault::GatewayPaused,
];

/// Of the stores, and of the wires to them.
pub(super) const OF_STORES: [Fault; 10] = [
    Fault::PostgresKilled,
    Fault::ClaimsEmptied,
    Fault::EffectsSwallowed,
    Fault::UpstreamCut,
    Fault::ClaimsSwallowed,
    Fault::PostgresPaused,
    Fault::UpstreamSwallowed,
    Fault::BackendKilled,
    Fault::EffectsCut,
    Fault::ClaimsCut,
];

/// Of claims alone.
pub(super) const OF_CLAIMS: [Fault; 3] = [
    Fault::ClaimsEmptied,
    Fault::ClaimsCut,
    Fault::ClaimsSwallowed,
];

/// Where claims are in Redis.
pub(super) const OF_REDIS: [Fault; 2] = [Fault::RedisKilled, Fault::RedisPaused];

/// Faults without end: every kind once in an order of the seed's, then all again in
/// another one.
pub(super) struct Schedule {
    kinds: Vec<Fault>,
    left: Vec<Fault>,
    dice: StdRng,
}

impl Schedule {
    pub(super) fn new(seed: u64, lane: u64, kinds: Vec<Fault>) -> Self {
        Self {
            kinds,
            left: Vec::new(),
            dice: dice(seed, u64::MAX - lane),
        }
    }

    /// The calm before the next fault, the fault, and how long it lasts where that is
    /// not its own.
    pub(super) fn next(&mut self) -> Option<(Duration, Fault, Duration)> {
        if self.left.is_empty() {
            self.left.clone_from(&self.kinds);
        }
        let which = self.dice.random_range(0..self.left.len().max(1));
        let calm = Duration::from_millis(self.dice.random_range(1_000..3_500));
        let lasts = Duration::from_millis(self.dice.random_range(200..1_500));
        let fault = (which < self.left.len()).then(|| self.left.swap_remove(which))?;
        Some((calm, fault, lasts))
    }
}

fn dice(seed: u64, stream: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ stream.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}
