//! Buckets in Redis, Valkey, or a cluster of either: one number a bucket, the time on the
//! server's clock at which it is full, kept until then.
//!
//! A decision is one script over all limits of a request. In a cluster a script reaches
//! one slot only: keys of one owner share a hash tag and so a slot; limits of several
//! owners (a tenant's and an address's) are decided one owner after the other, and what
//! the first ones took is given back when a later one refuses.

pub(super) mod link;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use ::redis::{Script, ScriptInvocation};

use super::keys::Key;
use super::{Decision, Item, Items};
use link::{Away, Link};

/// A request has so many limits at most.
const MOST: usize = super::MOST;

/// How much is asked of a bucket: `least`, or nothing is taken from any; then up to
/// `most`, if it holds that much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) least: u32,
    pub(super) most: u32,
}

/// What was asked of each of a request's limits, or taken from it.
pub(super) type Of<T> = [T; MOST];

/// The store that all runners share.
pub(super) struct Shared {
    link: Arc<Link>,
    take: Script,
    give_back: Script,
}

impl Shared {
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self {
            link,
            take: Script::new(include_str!("take.lua")),
            give_back: Script::new(include_str!("give_back.lua")),
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    /// Takes from all limits or from none: the decision, and how many were taken of each.
    pub(super) async fn take(
        &self,
        items: &Items,
        asks: &Of<Ask>,
    ) -> Result<(Decision, Of<u32>), Away> {
        let mut decision = Decision::new(items, 0);
        let mut taken = Of::<u32>::default();
        for owner in self.owners(items) {
            let of_owner = |key: Key| owner.is_none_or(|owner| owner == key.owner);
            let here = || {
                items
                    .iter()
                    .enumerate()
                    .filter(|(_, item)| of_owner(item.key))
            };
            let mut script = self.take.prepare_invoke();
            script.arg(0);
            for (index, item) in here() {
                ask(
                    &mut script,
                    item,
                    asks.get(index).copied().unwrap_or_default(),
                );
            }
            let answer: Vec<u64> = self.link.run(&script).await?;
            let mut answer = answer.into_iter();
            let mut next = || answer.next().ok_or(Away);
            (decision.now, decision.wait) = (next()?, next()?);
            for (index, _) in here() {
                let (full_at, count) = (next()?, next()?);
                if let Some(bucket) = decision.buckets_mut().get_mut(index) {
                    bucket.full_at = full_at;
                }
                if let Some(taken) = taken.get_mut(index) {
                    *taken = u32::try_from(count).unwrap_or(u32::MAX);
                }
            }
            if decision.wait > 0 {
                let back = items.iter().zip(taken).filter(|(_, count)| *count > 0);
                self.give_back(back.map(|(item, count)| (*item, count)))
                    .await?;
                return Ok((decision, Of::default()));
            }
        }
        Ok((decision, taken))
    }

    /// Gives back what was taken and not used.
    pub(super) async fn give_back(
        &self,
        unused: impl Iterator<Item = (Item, u32)>,
    ) -> Result<(), Away> {
        // A script each: they may belong to several owners, and it is seldom.
        for (item, count) in unused {
            let mut script = self.give_back.prepare_invoke();
            script
                .key(name(item.key))
                .arg(item.limit.interval())
                .arg(count);
            self.link.run::<u64>(&script).await?;
        }
        Ok(())
    }

    /// One round for all where one server has every key, else one an owner, in order.
    fn owners(&self, items: &Items) -> impl Iterator<Item = Option<u64>> + use<> {
        let mut owners: Of<Option<Option<u64>>> = Of::default();
        for (index, item) in items.iter().enumerate() {
            let owner = self.link.is_cluster().then_some(item.key.owner);
            if !owners.contains(&Some(owner))
                && let Some(place) = owners.get_mut(index)
            {
                *place = Some(owner);
            }
        }
        owners.into_iter().flatten()
    }
}

fn ask(script: &mut ScriptInvocation<'_>, item: &Item, ask: Ask) {
    script
        .key(name(item.key))
        .arg(item.limit.interval())
        .arg(item.limit.burst)
        .arg(ask.least)
        .arg(ask.most);
}

/// What stands between the braces decides the slot.
fn name(key: Key) -> String {
    let Key {
        owner,
        bucket: [first, second],
    } = key;
    format!("postern:limit:{{{owner:016x}}}:{first:016x}{second:016x}")
}
