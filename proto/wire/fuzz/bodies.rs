// What the fuzz targets run, and a bounded test of `tests/properties.rs` too.
// Each takes any bytes and may only return: an assertion that fails, a panic, an
// endless loop or memory beyond the input's measure is the finding.

use postern_wire::Side;
use postern_wire::frame::{self, Decoder, Frame, FrameError, FrameType};
use postern_wire::message::Message;

/// The first byte says how the rest arrives: in chunks of up to so many bytes (0:
/// at once). Chunks change nothing about the frames that come out. Returns how
/// many did.
pub(crate) fn frames(input: &[u8]) -> usize {
    let Some((chunk, stream)) = input.split_first() else {
        return 0;
    };
    let at_once = feed(stream, stream.len());
    let in_chunks = feed(stream, usize::from(*chunk));
    assert_eq!(at_once, in_chunks);
    at_once.0.len()
}

fn feed(mut stream: &[u8], chunk: usize) -> (Vec<Frame>, Result<usize, FrameError>) {
    let chunk = if chunk == 0 { stream.len() } else { chunk };
    let mut decoder = Decoder::new();
    let mut frames = Vec::new();
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
        if stream.is_empty() {
            return (frames, Ok(decoder.pending()));
        }
        let room = decoder.room();
        let spare = room.capacity() - room.len();
        assert!(spare > 0, "a decoder always has room for the next byte");
        let (now, later) = stream.split_at(spare.min(chunk).min(stream.len()));
        room.extend_from_slice(now);
        stream = later;
    }
}

/// The first byte says whose frame of which type it is; the rest is the buffer. A
/// message that can be read can be written, and reads the same again.
pub(crate) fn messages(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    let side = if kind % 2 == 0 {
        Side::Gateway
    } else {
        Side::Runner
    };
    let Ok(frame_type) = FrameType::try_from(kind / 2) else {
        return;
    };
    let Ok(message) = Message::decode(side, frame_type, body) else {
        return;
    };
    let Ok(written) = message.encode() else {
        // Entries that share their bytes in `body` may not fit once each has its own.
        assert!(
            4 * body.len() > frame::MAX_LEN / 2,
            "a message from {} bytes fits",
            body.len()
        );
        return;
    };
    match frame::split(&written) {
        Ok((again, body)) => {
            assert_eq!(again, frame_type);
            match Message::decode(side, again, body) {
                Ok(read) => assert_eq!(read, message),
                Err(error) => panic!("what was written does not read: {error}"),
            }
        }
        Err(error) => panic!("what was written is no frame: {error}"),
    }
}
