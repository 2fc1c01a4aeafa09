//! What holds for every message, and for every sequence of bytes.

#![allow(clippy::expect_used, reason = "test code")]

#[path = "../fuzz/bodies.rs"]
mod bodies;
mod support;

use postern_wire::message::Message;
use postern_wire::{Side, frame};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A recorded frame with some of its bytes changed, some added, the end cut off.
fn mutated() -> impl Strategy<Value = (Side, Vec<u8>)> {
    let frames: Vec<_> = support::recorded()
        .into_iter()
        .map(|it| (it.from, it.bytes))
        .collect();
    let edits = vec((any::<Index>(), any::<u8>()), 0..8);
    let cut = prop_oneof![3 => Just(None), 1 => any::<Index>().prop_map(Some)];
    let more = prop_oneof![3 => Just(Vec::new()), 1 => vec(any::<u8>(), 1..8)];
    (select(frames), edits, cut, more).prop_map(|((from, mut bytes), edits, cut, more)| {
        for (place, byte) in edits {
            let at = place.index(bytes.len());
            if let Some(old) = bytes.get_mut(at) {
                *old = byte;
            }
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        bytes.extend(more);
        (from, bytes)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_reads_the_same((from, message) in support::message()) {
        let written = message.encode().expect("short enough");
        let (frame_type, body) = frame::split(&written).expect("a whole frame");
        let read = Message::decode(from, frame_type, body).expect("what was just written");
        prop_assert_eq!(read, message);
    }

    #[test]
    fn any_bytes_are_a_message_or_an_error(bytes in vec(any::<u8>(), 0..300)) {
        bodies::messages(&bytes);
    }

    #[test]
    fn damaged_frames_are_a_message_or_an_error((from, bytes) in mutated()) {
        if let Some((frame_type, body)) = bytes.split_first() {
            let side = match from { Side::Gateway => 0, Side::Runner => 1 };
            let body = body.get(3..).unwrap_or_default();
            bodies::messages(&[&[frame_type.wrapping_mul(2) + side], body].concat());
        }
    }

    #[test]
    fn any_bytes_are_frames_or_an_error_however_they_arrive(bytes in vec(any::<u8>(), 0..600)) {
        bodies::frames(&bytes);
    }

    #[test]
    fn frames_come_out_whole_however_they_arrive(
        messages in vec(support::message(), 1..5),
        chunk in 0..=u8::MAX,
    ) {
        let mut stream = vec![chunk];
        for (_, message) in &messages {
            stream.extend(message.encode().expect("short enough"));
        }
        prop_assert_eq!(bodies::frames(&stream), messages.len());
    }
}
