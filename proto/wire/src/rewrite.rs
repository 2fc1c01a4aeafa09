//! The answer that nearly every request gets, laid out front to back: a call is answered
//! in the time that the library's builder takes for this message.
//!
//! ```text
//!  0  distance to the answer's table
//!  4  vtable of the answer ─ 16  the answer: id, action, its type
//! 32  vtable of the rewrite ─ 48  the rewrite: five distances, those of absent fields unused
//! 72  vtable of an entry with a value ─ 80  of one without
//! 88  texts and lists, each behind what leads to it
//! ```
//!
//! The property tests read what is written here with the library's verifier.

use crate::FrameType;
use crate::frame::{HEADER_LEN, Header, MAX_LEN};
use crate::generated::a6::httpreq_call::Action;
use crate::write::{Pair, Rewrite, TooLarge};

/// Where the answer's id stands, counted from the frame's start as all places here.
const ID: usize = HEADER_LEN + 20;
/// Where the vtable of the rewrite has its first slot, and the rewrite its first distance.
const SLOTS: usize = HEADER_LEN + 36;
const FIELDS: usize = HEADER_LEN + 52;
/// How far from the rewrite's start its first distance stands.
const FIRST: u16 = 4;
const WITH_VALUE: usize = HEADER_LEN + 72;
const WITHOUT_VALUE: usize = HEADER_LEN + 80;

#[rustfmt::skip]
const HEAD: [u8; HEADER_LEN + 88] = [
    0, 0, 0, 0,
    16, 0, 0, 0,
    10, 0, 16, 0, 4, 0, 12, 0, 8, 0, 0, 0,
    12, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0, 0, Action::Rewrite.0, 0, 0, 0,
    14, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    8, 0, 12, 0, 4, 0, 8, 0,
    8, 0, 8, 0, 4, 0, 0, 0,
];

/// The vtables of entries without a name, with a value and without.
const NAMELESS: [u8; 8] = [8, 0, 8, 0, 0, 0, 4, 0];
const EMPTY: [u8; 8] = [8, 0, 4, 0, 0, 0, 0, 0];

/// Writes the whole frame in place of what was there.
pub(crate) fn write<P: Pair>(
    frame: &mut Vec<u8>,
    id: u32,
    rewrite: &Rewrite<'_, P>,
) -> Result<(), TooLarge> {
    frame.clear();
    frame.extend_from_slice(&HEAD);
    let mut writing = Writing(frame);
    writing.put(ID, id);
    if let Some(path) = rewrite.path {
        writing.field(0);
        writing.text(path)?;
    }
    let lists = [rewrite.headers, rewrite.args, rewrite.resp_headers];
    for (slot, list) in (1..).zip(lists) {
        if !list.is_empty() {
            writing.field(slot);
            writing.entries(list)?;
        }
    }
    if let Some(body) = rewrite.body {
        writing.field(4);
        writing.bytes(body)?;
    }
    let len = frame.len() - HEADER_LEN;
    let header = Header::encode(FrameType::HttpReqCall, len).ok_or(TooLarge)?;
    *frame.first_chunk_mut().ok_or(TooLarge)? = header;
    Ok(())
}

/// A frame that is being written. What is added ends where a number may stand.
struct Writing<'f>(&'f mut Vec<u8>);

impl Writing<'_> {
    fn put(&mut self, at: usize, number: u32) {
        let place = self.0.get_mut(at..).and_then(|rest| rest.first_chunk_mut());
        if let Some(place) = place {
            *place = number.to_le_bytes();
        }
    }

    fn number(&mut self, number: usize) {
        // A frame is shorter than 2²⁴ bytes.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    /// Has the distance at this place lead to what is added next.
    fn lead(&mut self, from: usize) {
        let distance = u32::try_from(self.0.len() - from).unwrap_or(u32::MAX);
        self.put(from, distance);
    }

    /// The rewrite has this field, and it comes next.
    fn field(&mut self, slot: u16) {
        let place = usize::from(slot);
        let in_table = (FIRST + 4 * slot).to_le_bytes();
        let rest = self.0.get_mut(SLOTS + 2 * place..);
        if let Some(place) = rest.and_then(|rest| rest.first_chunk_mut()) {
            *place = in_table;
        }
        self.lead(FIELDS + 4 * place);
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        self.padded(bytes, bytes.len().wrapping_neg() % 4)
    }

    /// With the NUL that a string ends with and does not count.
    fn text(&mut self, text: &[u8]) -> Result<(), TooLarge> {
        self.padded(text, 4 - text.len() % 4)
    }

    fn padded(&mut self, bytes: &[u8], zeros: usize) -> Result<(), TooLarge> {
        // Before memory is spent on a frame that could never be sent.
        if bytes.len() > MAX_LEN.saturating_sub(self.0.len()) {
            return Err(TooLarge);
        }
        self.number(bytes.len());
        self.0.extend_from_slice(bytes);
        self.0
            .extend_from_slice([0; 4].get(..zeros).unwrap_or_default());
        Ok(())
    }

    /// The distances to the entries, then entry after entry with its texts.
    fn entries<P: Pair>(&mut self, entries: &[P]) -> Result<(), TooLarge> {
        if entries.len() > MAX_LEN / 16 {
            return Err(TooLarge);
        }
        self.number(entries.len());
        let mut distance = self.0.len();
        self.0.resize(distance + 4 * entries.len(), 0);
        for entry in entries {
            let Some(name) = entry.name() else {
                self.nameless(distance, entry.value())?;
                distance += 4;
                continue;
            };
            self.lead(distance);
            distance += 4;
            let at = self.0.len();
            let vtable = match entry.value() {
                Some(_) => WITH_VALUE,
                None => WITHOUT_VALUE,
            };
            self.number(at - vtable);
            self.number(0);
            if entry.value().is_some() {
                self.number(0);
            }
            self.lead(at + 4);
            self.text(name)?;
            if let Some(value) = entry.value() {
                self.lead(at + 8);
                self.text(value)?;
            }
        }
        Ok(())
    }

    /// An entry without a name, which only tests write: its vtable, then itself.
    #[cold]
    fn nameless(&mut self, distance: usize, value: Option<&[u8]>) -> Result<(), TooLarge> {
        let vtable = if value.is_some() { NAMELESS } else { EMPTY };
        self.0.extend_from_slice(&vtable);
        self.lead(distance);
        self.number(vtable.len());
        if let Some(value) = value {
            self.number(4);
            self.text(value)?;
        }
        Ok(())
    }
}
