// What the fuzz targets run, and a bounded test of `tests/properties.rs` too.
// Each takes any bytes and may only return: an assertion that fails, a panic, an
// endless loop or memory beyond the input's measure is the finding.

use postern_wire::frame::{self, Decoder, Frame, FrameError, FrameType};
use postern_wire::message::{Entry, HttpReqCallReq, HttpRespCallReq, Message, PrepareConfReq};
use postern_wire::read::{self, ExtraInfoResp, Fault, HttpReqCall, HttpRespCall, PrepareConf};
use postern_wire::{DecodeError, Side};

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
    let decoded = Message::decode(side, frame_type, body);
    if side == Side::Gateway {
        agree(&decoded, &read_in_place(frame_type, body));
    }
    let Ok(message) = decoded else {
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

/// The library's verifier with the generated code, and the readers that the runner
/// uses, take the same buffers for messages and find the same in them.
fn agree(library: &Result<Message, DecodeError>, ours: &Result<Message, DecodeError>) {
    // What entries may share is measured differently; honest buffers are far below both.
    let too_much = |error: &DecodeError| {
        let library = ["Apparent size too large", "Too many tables"];
        matches!(error, DecodeError::Fault(_, Fault::Sharing))
            || library
                .iter()
                .any(|limit| error.to_string().contains(limit))
    };
    match (library, ours) {
        (Ok(library), Ok(ours)) => assert_eq!(ours, library),
        (Err(_), Err(_)) => {}
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => {
            assert!(too_much(error), "only one says: {error}")
        }
    }
}

fn read_in_place(frame_type: FrameType, body: &[u8]) -> Result<Message, DecodeError> {
    Ok(match frame_type {
        FrameType::Error => return Err(DecodeError::Unexpected(Side::Gateway, frame_type)),
        FrameType::PrepareConf => {
            let call = PrepareConf::read(body)?;
            let (conf, key) = (owned(call.conf()), call.key().to_vec());
            Message::PrepareConfReq(PrepareConfReq { conf, key })
        }
        FrameType::HttpReqCall => {
            let call = HttpReqCall::read(body)?;
            Message::HttpReqCallReq(HttpReqCallReq {
                id: call.id(),
                src_ip: call.src_ip().to_vec(),
                method: call.method(),
                path: call.path().to_vec(),
                args: owned(call.args()),
                headers: owned(call.headers().iter().copied()),
                conf_token: call.conf_token(),
            })
        }
        FrameType::ExtraInfo => {
            let result = ExtraInfoResp::read(body)?.result().map(<[u8]>::to_vec);
            Message::ExtraInfoResp { result }
        }
        FrameType::HttpRespCall => {
            let call = HttpRespCall::read(body)?;
            Message::HttpRespCallReq(HttpRespCallReq {
                id: call.id(),
                status: call.status(),
                headers: owned(call.headers()),
                conf_token: call.conf_token(),
            })
        }
    })
}

fn owned<'a>(entries: impl ExactSizeIterator<Item = read::Entry<'a>>) -> Vec<Entry> {
    let count = entries.len();
    let entries: Vec<Entry> = entries
        .map(|(name, value)| Entry {
            name: Some(name.to_vec()),
            value: value.map(<[u8]>::to_vec),
        })
        .collect();
    assert_eq!(entries.len(), count);
    entries
}
