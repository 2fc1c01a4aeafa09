//! Memory follows the bytes that have arrived, never what they claim.
//!
//! One test, so that no other allocates meanwhile.

#![allow(clippy::expect_used, clippy::indexing_slicing, reason = "test code")]

use flatbuffers::{FlatBufferBuilder, TableFinishedWIPOffset, WIPOffset};
use peak_alloc::PeakAlloc;
use postern_wire::frame::{Decoder, HEADER_LEN, MAX_LEN};
use postern_wire::message::{Entry, HttpReqCallReq, Message};
use postern_wire::read::HttpReqCall;
use postern_wire::write::{Stop, Writer};
use postern_wire::{FrameType, Method, Side, TooLarge};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// The most that was held at once while this ran, beyond what was held before.
fn peak<T>(work: impl FnOnce() -> T) -> (usize, T) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = work();
    (MEMORY.peak_usage().saturating_sub(before), result)
}

/// A header that claims the longest buffer there is, and `arrived` bytes of it,
/// as a socket brings them.
fn claim_16_mib(arrived: usize) -> usize {
    let (peak, _) = peak(|| {
        let mut decoder = Decoder::new();
        let mut source = [2, 0xff, 0xff, 0xff]
            .into_iter()
            .chain(std::iter::repeat(0));
        let mut left = HEADER_LEN + arrived;
        while left > 0 {
            let room = decoder.room();
            let take = left.min(room.capacity() - room.len());
            assert!(take > 0, "a full decoder makes room");
            room.extend(source.by_ref().take(take));
            left -= take;
            assert_eq!(decoder.next_frame().expect("a known type"), None);
        }
        decoder
    });
    peak
}

/// A call whose headers are `count` times the same table: small on the wire.
fn one_header_many_times(count: usize) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let name = builder.create_vector(b"n");
    let start = builder.start_table();
    builder.push_slot_always(4, name);
    let entry = builder.end_table(start);
    let entries: Vec<WIPOffset<TableFinishedWIPOffset>> = vec![entry; count];
    let headers = builder.create_vector_from_iter(
        entries
            .into_iter()
            .map(|entry| WIPOffset::<flatbuffers::ForwardsUOffset<u32>>::new(entry.value())),
    );
    let start = builder.start_table();
    builder.push_slot_always(14, headers);
    let root = builder.end_table(start);
    builder.finish_minimal(root);
    builder.finished_data().to_vec()
}

fn call(headers: Vec<Entry>) -> Message {
    Message::HttpReqCallReq(HttpReqCallReq {
        id: 1,
        src_ip: vec![127, 0, 0, 1],
        method: Method::Get,
        path: b"/".to_vec(),
        args: Vec::new(),
        headers,
        conf_token: 1,
    })
}

#[test]
fn memory_follows_the_bytes_that_have_arrived() {
    for arrived in [0, 1, 100, 10_000, 1_000_000] {
        let held = claim_16_mib(arrived);
        // Doubling while it grows: the old and the new buffer at once.
        assert!(
            held <= 4 * (arrived + 4096),
            "{held} bytes held for {arrived} that arrived"
        );
    }

    // As many entries as fit: no limit on their number but the frame's.
    let many = vec![Entry::new("n", "v"); 400_000];
    let whole = call(many).encode().expect("fits");
    assert!(whole.len() > MAX_LEN / 2);
    let message = Message::decode(Side::Gateway, FrameType::HttpReqCall, &whole[HEADER_LEN..]);
    let Ok(Message::HttpReqCallReq(read)) = message else {
        panic!("{message:?}")
    };
    assert_eq!(read.headers.len(), 400_000);
    drop(read);

    // A buffer that unfolds to more than it is long costs what its length allows.
    for count in [10, 1000, 100_000] {
        let body = one_header_many_times(count);
        let (held, _) = peak(|| Message::decode(Side::Gateway, FrameType::HttpReqCall, &body));
        assert!(
            held <= 64 * body.len() + 4096,
            "{held} bytes held for {} bytes",
            body.len()
        );
        let (held, _) = peak(|| HttpReqCall::read(&body).is_ok());
        assert!(
            held <= 16 * body.len(),
            "{held} bytes held for {} bytes",
            body.len()
        );
    }

    // A frame that could never be sent is given up early, and its memory with it.
    let body = vec![0; 4 * MAX_LEN];
    let stop = Stop {
        status: 200,
        headers: &[] as &[Entry],
        body: Some(&body),
    };
    let mut writer = Writer::new();
    let (held, written) = peak(|| writer.stop(1, &stop).map(<[u8]>::len));
    assert_eq!(written, Err(TooLarge));
    assert!(held < 1024, "{held} bytes held for a frame that cannot be");
    assert!(writer.no_action(1).is_ok(), "the writer goes on");

    // A long answer's memory is not kept for the short ones that follow.
    let before = MEMORY.current_usage();
    let mut writer = Writer::new();
    let body = vec![0; 1_000_000];
    assert!(
        writer
            .stop(
                1,
                &Stop {
                    body: Some(&body),
                    ..stop
                }
            )
            .is_ok()
    );
    drop(body);
    assert!(writer.no_action(1).is_ok());
    let kept = MEMORY.current_usage().saturating_sub(before);
    assert!(kept < 128 * 1024, "{kept} bytes kept");
}
