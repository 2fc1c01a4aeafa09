//! What a worker leaves to the one that takes over from it (SIGHUP).
//!
//! Whatever a plugin registers here is asked for just before the change, goes through the
//! supervisor as bytes, and reaches the successor before its first connection. Both are
//! the same build. A worker that crashed leaves nothing.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// All legacies together; more than a plugin should ever leave.
const MAX_BYTES: usize = 48 << 20;

type Leave = Box<dyn Fn() -> Bytes + Send + Sync>;
type TakeOver = Box<dyn Fn(&[u8]) + Send + Sync>;

/// What outlives a worker, by name.
#[derive(Default)]
pub(crate) struct Legacies(Vec<(&'static str, Leave, TakeOver)>);

impl Legacies {
    pub(crate) fn add(&mut self, name: &'static str, leave: Leave, take_over: TakeOver) {
        self.0.push((name, leave, take_over));
    }

    /// Everything that is to be left. What would make it too long is left out, and told.
    pub(crate) fn leave(&self) -> Bytes {
        let mut left = BytesMut::new();
        for (name, leave, _) in &self.0 {
            let value = leave();
            let len = u32::try_from(value.len()).unwrap_or(u32::MAX);
            if left.len() + name.len() + value.len() + 8 > MAX_BYTES {
                tracing::warn!(name, bytes = len, "too much to leave to the next worker");
                continue;
            }
            left.put_u32_le(u32::try_from(name.len()).unwrap_or(u32::MAX));
            left.put_slice(name.as_bytes());
            left.put_u32_le(len);
            left.put_slice(&value);
        }
        left.freeze()
    }

    /// Goes on from what was left. Unknown names are of plugins that the configuration no
    /// longer has.
    pub(crate) fn take_over(&self, mut left: Bytes) {
        while let (Some(name), Some(value)) = (piece(&mut left), piece(&mut left)) {
            for (known, _, take_over) in &self.0 {
                if known.as_bytes() == name {
                    take_over(&value);
                }
            }
        }
    }
}

fn piece(left: &mut Bytes) -> Option<Bytes> {
    let len = usize::try_from(left.try_get_u32_le().ok()?).ok()?;
    (len <= left.len()).then(|| left.split_to(len))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn each_gets_its_own_and_cut_off_ones_are_left_out() {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let mut legacies = Legacies::default();
        for name in ["a", "bc"] {
            let heard = Arc::clone(&heard);
            let hear = move |value: &[u8]| {
                if let Ok(mut heard) = heard.lock() {
                    heard.push((name, value.to_vec()));
                }
            };
            let leave = move || Bytes::from(format!("of {name}"));
            legacies.add(name, Box::new(leave), Box::new(hear));
        }
        let left = legacies.leave();
        for end in 0..=left.len() {
            legacies.take_over(left.slice(..end));
        }
        let heard = heard.lock().map(|heard| heard.clone()).unwrap_or_default();
        let of = |name: &str| heard.iter().filter(|(to, _)| *to == name).count();
        assert!(
            heard.contains(&("a", b"of a".to_vec())) && heard.contains(&("bc", b"of bc".to_vec()))
        );
        assert_eq!(
            (of("bc"), heard.len() - of("a")),
            (1, 1),
            "only a whole one counts"
        );
    }
}
