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
    /// One of both, somewhere in the entry that is announced there.
    #[error("the entry that byte {0} announces does not lie in the buffer as it may")]
    Entry(usize),
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

/// The vtable of the table that stands `at`.
#[inline]
fn vtable(buffer: &[u8], at: usize) -> Result<usize, Fault> {
    let back = i32::from_le_bytes(number(buffer, at)?);
    // Most vtables stand before their table, shared ones may stand behind it.
    at.checked_add_signed(-(back as isize))
        .ok_or(Fault::OutOfBounds(at))
}

/// The string or `[ubyte]` that the distance `at` leads to.
#[inline]
fn bytes(buffer: &[u8], at: usize) -> Result<&[u8], Fault> {
    let vector = follow(buffer, at)?;
    let start = vector + 4;
    let end = start + long(buffer, vector)?;
    buffer.get(start..end).ok_or(Fault::OutOfBounds(vector))
}

/// A table, with the slots its vtable gives it.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    buffer: &'a [u8],
    at: usize,
    slots: &'a [u8],
}

impl<'a> Table<'a> {
    /// The buffer's outermost table.
    pub(crate) fn root(buffer: &'a [u8]) -> Result<Self, Fault> {
        let at = follow(buffer, 0)?;
        Ok(Self {
            buffer,
            at,
            slots: slots(buffer, vtable(buffer, at)?)?,
        })
    }

    /// Where the field of this slot stands.
    #[inline]
    fn field(&self, slot: usize) -> Option<usize> {
        match place(self.slots, slot) {
            0 => None,
            place => Some(self.at + place),
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
        self.field(slot)
            .map(|at| bytes(self.buffer, at))
            .transpose()
    }

    /// A `[TextEntry]`, every entry of which has been walked through once.
    pub(crate) fn entries(&self, slot: usize) -> Result<Entries<'a>, Fault> {
        let entries = self.unread_entries(slot)?;
        self.walk(entries, |_| ())?;
        Ok(entries)
    }

    /// The same, kept: for a list that is gone over again and again.
    #[inline(never)]
    pub(crate) fn entry_list(&self, slot: usize) -> Result<Vec<Entry<'a>>, Fault> {
        let entries = self.unread_entries(slot)?;
        // No honest entry is shorter than 16 bytes on the wire; here each takes 32.
        let mut list = Vec::with_capacity(entries.left.min(self.buffer.len() / 16));
        self.walk(entries, |entry| list.push(entry))?;
        Ok(list)
    }

    fn unread_entries(&self, slot: usize) -> Result<Entries<'a>, Fault> {
        let Some(at) = self.field(slot) else {
            return Ok(Entries::default());
        };
        let vector = follow(self.buffer, at)?;
        let left = long(self.buffer, vector)?;
        let at = vector + 4;
        if self.buffer.get(at..at + 4 * left).is_none() {
            return Err(Fault::OutOfBounds(vector));
        }
        Ok(Entries {
            buffer: self.buffer,
            at: at / 4,
            left,
            shape: Shape::default(),
        })
    }

    /// Goes over all entries, and finds whatever is wrong with one.
    #[inline]
    fn walk(&self, mut entries: Entries<'a>, mut each: impl FnMut(Entry<'a>)) -> Result<(), Fault> {
        let mut named = 0;
        while entries.left > 0 {
            let at = entries.at;
            let (name, value) = entries.step().ok_or(Fault::Entry(4 * at))?;
            named += name.len() + value.map_or(0, <[u8]>::len);
            each((name, value));
        }
        if named > SHARING * self.buffer.len() {
            return Err(Fault::Sharing);
        }
        Ok(())
    }
}

/// A vtable's slots.
fn slots(buffer: &[u8], vtable: usize) -> Result<&[u8], Fault> {
    let len = usize::from(u16::from_le_bytes(number(buffer, vtable)?));
    if !len.is_multiple_of(2) {
        return Err(Fault::Unaligned(vtable));
    }
    let whole = buffer
        .get(vtable..vtable + len)
        .ok_or(Fault::OutOfBounds(vtable))?;
    // Before the slots stand the vtable's length and the table's.
    Ok(whole.get(4..).unwrap_or_default())
}

/// Where in a table the field of this slot stands; 0: it is absent.
#[inline]
fn place(slots: &[u8], slot: usize) -> usize {
    let place = slots.get(2 * slot..).and_then(|slots| slots.first_chunk());
    place.map_or(0, |place| usize::from(u16::from_le_bytes(*place)))
}

/// A name and, if there is one, its value.
pub type Entry<'a> = (&'a [u8], Option<&'a [u8]>);

/// Where the entries of one vtable have name and value, in words; 0: they have none.
/// Most of the time all entries of a list share one, and it is looked at once.
#[derive(Clone, Copy)]
struct Shape {
    vtable: usize,
    name: usize,
    value: usize,
}

impl Default for Shape {
    fn default() -> Self {
        // No vtable stands there, nor does a distance lead there.
        let vtable = usize::MAX / 2;
        Self {
            vtable,
            name: 0,
            value: 0,
        }
    }
}

impl Shape {
    #[cold]
    fn read(buffer: &[u8], vtable: usize) -> Option<Self> {
        let slots = slots(buffer, vtable).ok()?;
        Some(Self {
            vtable,
            name: words(place(slots, 0))?,
            value: words(place(slots, 1))?,
        })
    }
}

/// So many bytes in words. A table starts at a word, so what lies at no whole number of
/// them is unaligned.
#[inline]
fn words(bytes: usize) -> Option<usize> {
    bytes.is_multiple_of(4).then_some(bytes / 4)
}

/// Names with values, in the order of the wire.
///
/// All that leads to an entry's bytes are words, which lie at multiples of four: here the
/// buffer is a list of them, and one comparison finds that a word is all there.
#[derive(Clone, Copy, Default)]
pub struct Entries<'a> {
    buffer: &'a [u8],
    /// Of the distance to the next entry, in words.
    at: usize,
    left: usize,
    /// Of the entry before.
    shape: Shape,
}

impl<'a> Entries<'a> {
    /// The next entry; `None` at the end, or if it does not lie in the buffer as it may.
    ///
    /// Some sixty instructions, a dozen times a call: worth having in the loop itself.
    #[inline(always)]
    fn step(&mut self) -> Option<Entry<'a>> {
        self.left = self.left.checked_sub(1)?;
        let table = self.follow(self.at)?;
        self.at += 1;
        // Most vtables stand before their table, shared ones may stand behind it.
        let back = self.word(table)?.cast_signed() as isize;
        let vtable = (4 * table).wrapping_add_signed(-back);
        if vtable != self.shape.vtable {
            self.shape = Shape::read(self.buffer, vtable)?;
        }
        let name = match self.shape.name {
            0 => &[],
            place => self.bytes(table + place)?,
        };
        let value = match self.shape.value {
            0 => None,
            place => Some(self.bytes(table + place)?),
        };
        Some((name, value))
    }

    #[inline(always)]
    fn word(&self, at: usize) -> Option<u32> {
        let (words, _) = self.buffer.as_chunks();
        words.get(at).copied().map(u32::from_le_bytes)
    }

    /// Where the distance that stands `at` leads to.
    #[inline(always)]
    fn follow(&self, at: usize) -> Option<usize> {
        Some(at + words(self.word(at)? as usize)?)
    }

    /// The bytes that the distance `at` leads to.
    #[inline(always)]
    fn bytes(&self, at: usize) -> Option<&'a [u8]> {
        let vector = self.follow(at)?;
        let len = self.word(vector)? as usize;
        let start = 4 * vector + 4;
        self.buffer.get(start..start + len)
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        // It has been walked through before: nothing is wrong with it.
        self.step()
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
