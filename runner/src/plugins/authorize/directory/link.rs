//! What the watch has said so far, and for how long each thing it said holds.
//!
//! An **epoch** is a time in which no change was missed: from a watch's first heartbeat,
//! a gap or a reset, to the next of these or the watch's end. An entry that was true in an
//! epoch was true until the last event heard in it.

use std::collections::{HashMap, VecDeque};

use tokio::time::Instant;

/// Epochs whose ends are remembered. An entry of an older one counts from when it was
/// asked for: it is then refused too early rather than too late.
const EPOCHS: usize = 64;
/// Changes that are remembered by key. An answer older than those counts as older
/// than a change of its own key.
const CHANGES: usize = 4_096;

/// What the watch has said so far.
#[derive(Default)]
pub(super) struct Link {
    /// The last epoch, live or not; 0: there was none.
    epoch: u64,
    revision: u64,
    heard_at: Option<Instant>,
    /// Epochs before the last, oldest first, with the last event heard in each.
    ended: VecDeque<(u64, Instant)>,
    changes: Changes,
    pub(super) away_until: Option<Instant>,
}

impl Link {
    /// An event came: no change may have been missed before `revision`.
    pub(super) fn heard(&mut self, revision: u64) {
        self.revision = revision;
        self.heard_at = Some(Instant::now());
    }

    /// Whether changes were missed between what was heard last and this event.
    pub(super) fn follows(&self, revision: u64) -> bool {
        revision == self.revision || revision == self.revision.saturating_add(1)
    }

    /// Whether nothing has changed since what was heard last.
    pub(super) fn is_at(&self, revision: u64) -> bool {
        revision == self.revision
    }

    /// A new epoch: what was committed up to `revision` has not been heard of one by one.
    pub(super) fn begin(&mut self, revision: u64) -> u64 {
        if let Some(heard_at) = self.heard_at {
            self.ended.push_back((self.epoch, heard_at));
        }
        if self.ended.len() > EPOCHS {
            self.ended.pop_front();
        }
        self.epoch += 1;
        self.changes.forget(revision);
        self.away_until = None;
        self.epoch
    }

    /// This key changed with this revision.
    pub(super) fn changed(&mut self, id: &str, revision: u64) {
        self.changes.note(id, revision);
    }

    /// Whether an answer of this revision knows of every change of its key that the
    /// watch has told.
    pub(super) fn is_news(&self, id: &str, revision: u64) -> bool {
        self.changes.known_to(id, revision)
    }

    /// Until when what was true in an epoch is known to have been; `None`: unknown.
    pub(super) fn held_until(&self, epoch: u64) -> Option<Instant> {
        if epoch == 0 {
            None
        } else if epoch == self.epoch {
            self.heard_at
        } else {
            let ended = self.ended.iter().find(|(ended, _)| *ended == epoch);
            ended.map(|(_, heard_at)| *heard_at)
        }
    }
}

/// The last change of each key that changed lately.
#[derive(Default)]
struct Changes {
    of: HashMap<Box<str>, u64>,
    /// Oldest first.
    order: VecDeque<(Box<str>, u64)>,
    /// Changes up to this revision are not known by key.
    floor: u64,
}

impl Changes {
    fn note(&mut self, id: &str, revision: u64) {
        self.of.insert(id.into(), revision);
        self.order.push_back((id.into(), revision));
        if self.order.len() > CHANGES
            && let Some((id, revision)) = self.order.pop_front()
        {
            self.floor = self.floor.max(revision);
            if self.of.get(&id) == Some(&revision) {
                self.of.remove(&id);
            }
        }
    }

    fn forget(&mut self, floor: u64) {
        self.of.clear();
        self.order.clear();
        self.floor = floor;
    }

    fn known_to(&self, id: &str, revision: u64) -> bool {
        revision >= self.floor && self.of.get(id).is_none_or(|changed| revision >= *changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_news_unless_its_own_key_has_changed_since() {
        let mut link = Link::default();
        link.begin(10);
        assert!(link.is_news("a", 10));
        assert!(
            !link.is_news("a", 9),
            "older than what the watch began with"
        );
        link.changed("a", 11);
        link.changed("b", 12);
        assert!(!link.is_news("a", 10));
        assert!(
            link.is_news("a", 11),
            "another key's change is none of its own"
        );
        assert!(link.is_news("c", 10));
        link.begin(20);
        assert!(!link.is_news("c", 19));
    }

    #[test]
    fn changes_are_forgotten_in_order_and_never_unheard() {
        let mut changes = Changes::default();
        let many = u64::try_from(CHANGES).unwrap_or_default();
        for n in 1..=many * 2 {
            changes.note(&format!("key-{}", n % (many + 10)), n);
        }
        assert_eq!(changes.order.len(), CHANGES);
        assert!(changes.of.len() <= CHANGES);
        assert_eq!(changes.floor, many);
        assert!(
            !changes.known_to("never seen", many - 1),
            "it may have changed"
        );
        assert!(changes.known_to("never seen", many));
    }

    #[tokio::test(start_paused = true)]
    async fn what_held_in_an_epoch_held_until_the_last_event() {
        let second = std::time::Duration::from_secs(1);
        let mut link = Link::default();
        let first = link.begin(1);
        link.heard(1);
        tokio::time::advance(second).await;
        link.heard(1);
        let last_heard = Instant::now();
        tokio::time::advance(second).await;
        let next = link.begin(5);
        assert_eq!(link.held_until(first), Some(last_heard));
        link.heard(5);
        assert_eq!(link.held_until(next), Some(Instant::now()));
        assert_eq!(link.held_until(0), None);
        for _ in 0..EPOCHS + 5 {
            link.begin(5);
        }
        assert_eq!(link.held_until(first), None);
        assert!(link.ended.len() <= EPOCHS);
    }
}
