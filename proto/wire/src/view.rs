//! A checked walk over a FlatBuffers buffer, for the calls a runner answers.
//!
//! The library's verifier goes over every field of every entry with a trace to hand
//! back, and takes a quarter of what a call costs a runner that does nothing else;
//! the generated accessors then walk the same way again. This walk checks as it
//! goes: each offset, length and slot is bounds-checked where it is used, in safe
//! code, so there is nothing to verify before and nothing to trust after. It accepts
//! exactly what the verifier accepts (`fuzz/bodies.rs` compares the two).
//!
//! A table begins with the distance back to its vtable: two lengths, then for each
//! slot where in the table its field lies, 0 for absent. A field that is a vector or
//! a table holds the distance to it. A vector begins with its length. All of it is
//! little-endian and aligned to its size.

/// What is wrong with a buffer, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// What is announced there does not lie in the buffer.
    #[error("what byte {0} announces does not lie in the buffer")]
    OutOfBounds(usize),
    /// A number does not stand where numbers of its size may.
    #[error("byte {0} is no place for a number of its size")]
    Unaligned(usize),
    /// Entries share so many bytes that going over them would take far longer than
    /// the buffer's length suggests.
    #[error("the buffer unfolds to more than {SHARING} times its length")]
    Sharing,
}

/// Entries may name this many times the buffer's length, all in all. Writers that
/// share nothing stay below once.
const SHARING: usize = 4;

/// A number of `N` bytes, which may stand at any multiple of `N`.
#[inline]
fn number<const N: usize>(buffer: &[u8], at: usize) -> Result<[u8; N], Fault> {
    if !at.is_multiple_of(N) {
        return Err(Fault::Unaligned(at));
    }
    let number = buffer.get(at..).and_then(|rest| rest.first_chunk());
    number.copied().ok_or(Fault::OutOfBounds(at))
}

#[inline]
fn long(buffer: &[u8], at: usize) -> Result<usize, Fault> {
    number(buffer, at).map(|bytes| u32::from_le_bytes(bytes) as usize)
}

/// Where the distance that stands `at` leads to.
#[inline]
fn follow(buffer: &[u8], at: usize) -> Result<usize, Fault> {
    Ok(at + long(buffer, at)?)
}

/// A table, with the slots its vtable gives it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Table<'a> {
    buffer: &'a [u8],
    at: usize,
    vtable: usize,
    slots: &'a [u8],
}

impl<'a> Table<'a> {
    /// The buffer's outermost table.
    #[inline]
    pub(crate) fn root(buffer: &'a [u8]) -> Result<Self, Fault> {
        Self::at(buffer, follow(buffer, 0)?)
    }

    #[inline]
    fn at(buffer: &'a [u8], at: usize) -> Result<Self, Fault> {
        let vtable = Self::vtable(buffer, at)?;
        let len = usize::from(u16::from_le_bytes(number(buffer, vtable)?));
        if !len.is_multiple_of(2) {
            return Err(Fault::Unaligned(vtable));
        }
        let whole = buffer
            .get(vtable..vtable + len)
            .ok_or(Fault::OutOfBounds(vtable))?;
        // Before the slots stand the vtable's length and the table's.
        let slots = whole.get(4..).unwrap_or_default();
        Ok(Self {
            buffer,
            at,
            vtable,
            slots,
        })
    }

    /// Another table of the same buffer. Entries of a list have the same vtable most
    /// of the time: it is looked at once.
    #[inline]
    fn next_at(&self, at: usize) -> Result<Self, Fault> {
        if Self::vtable(self.buffer, at)? == self.vtable {
            return Ok(Self { at, ..*self });
        }
        Self::at(self.buffer, at)
    }

    #[inline]
    fn vtable(buffer: &[u8], at: usize) -> Result<usize, Fault> {
        let back = i32::from_le_bytes(number(buffer, at)?);
        // Most vtables stand before their table, shared ones may stand behind it.
        at.checked_add_signed(-(back as isize))
            .ok_or(Fault::OutOfBounds(at))
    }

    /// Where the field of this slot stands.
    #[inline]
    fn field(&self, slot: usize) -> Option<usize> {
        let place = self.slots.get(2 * slot..)?.first_chunk()?;
        match u16::from_le_bytes(*place) {
            0 => None,
            place => Some(self.at + usize::from(place)),
        }
    }

    /// A number; 0 if absent.
    #[inline]
    fn scalar<const N: usize>(&self, slot: usize) -> Result<[u8; N], Fault> {
        self.field(slot)
            .map_or(Ok([0; N]), |at| number(self.buffer, at))
    }

    /// A `ubyte`.
    pub(crate) fn u8(&self, slot: usize) -> Result<u8, Fault> {
        self.scalar(slot).map(u8::from_le_bytes)
    }

    /// A `uint16`.
    pub(crate) fn u16(&self, slot: usize) -> Result<u16, Fault> {
        self.scalar(slot).map(u16::from_le_bytes)
    }

    /// A `uint32`.
    pub(crate) fn u32(&self, slot: usize) -> Result<u32, Fault> {
        self.scalar(slot).map(u32::from_le_bytes)
    }

    /// A string or `[ubyte]`.
    #[inline]
    pub(crate) fn bytes(&self, slot: usize) -> Result<Option<&'a [u8]>, Fault> {
        let Some(at) = self.field(slot) else {
            return Ok(None);
        };
        let vector = follow(self.buffer, at)?;
        let len = long(self.buffer, vector)?;
        let bytes = self.buffer.get(vector + 4..vector + 4 + len);
        bytes.map(Some).ok_or(Fault::OutOfBounds(vector))
    }

    /// A `[TextEntry]`, every entry of which has been walked through once.
    pub(crate) fn entries(&self, slot: usize) -> Result<Entries<'a>, Fault> {
        let Some(at) = self.field(slot) else {
            return Ok(Entries::default());
        };
        let vector = follow(self.buffer, at)?;
        let left = long(self.buffer, vector)?;
        let at = vector + 4;
        if self.buffer.get(at..at + 4 * left).is_none() {
            return Err(Fault::OutOfBounds(vector));
        }
        let entries = Entries {
            at,
            left,
            last: *self,
        };
        let mut named = 0;
        let mut walk = entries;
        while let Some(entry) = walk.step() {
            let (name, value) = entry?;
            named += name.len() + value.map_or(0, <[u8]>::len);
        }
        if named > SHARING * self.buffer.len() {
            return Err(Fault::Sharing);
        }
        Ok(entries)
    }
}

/// A name and, if there is one, its value.
pub type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

/// Names with values, in the order of the wire.
#[derive(Clone, Copy, Default)]
pub struct Entries<'a> {
    at: usize,
    left: usize,
    /// The entry before, or the table that the list belongs to.
    last: Table<'a>,
}

impl<'a> Entries<'a> {
    #[inline]
    fn step(&mut self) -> Option<Result<Entry<'a>, Fault>> {
        self.left = self.left.checked_sub(1)?;
        let at = self.at;
        self.at += 4;
        Some(self.entry(at))
    }

    /// The entry that the distance `at` leads to.
    #[inline]
    fn entry(&mut self, at: usize) -> Result<Entry<'a>, Fault> {
        let table = self.last.next_at(follow(self.last.buffer, at)?)?;
        self.last = table;
        Ok((table.bytes(0)?.unwrap_or_default(), table.bytes(1)?))
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        // It has been walked through before: there is no error left in it.
        self.step().map(Result::unwrap_or_default)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Entries<'_> {}

impl std::fmt::Debug for Entries<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the entries: tokens are among them, and this ends up in logs.
        f.debug_struct("Entries")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}
