//! What a chain changes on a request: collected, encoded once, and only if there is anything.

use std::borrow::Cow;

use bytes::Bytes;
use postern_wire::write::{Pair, Rewrite};

/// A name with its new value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edit {
    pub(crate) name: Cow<'static, str>,
    /// `None` deletes the name.
    pub(crate) value: Option<Bytes>,
}

impl Edit {
    pub(crate) fn set(name: impl Into<Cow<'static, str>>, value: impl Into<Bytes>) -> Self {
        Self {
            name: name.into(),
            value: Some(value.into()),
        }
    }

    pub(crate) fn delete(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            value: None,
        }
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

impl Pair for Edit {
    fn name(&self) -> Option<&[u8]> {
        Some(self.name.as_bytes())
    }

    fn value(&self) -> Option<&[u8]> {
        self.value.as_deref()
    }
}

/// What entries cost in a frame, at most.
pub(crate) fn size<P: Pair>(entries: &[P]) -> usize {
    let len = |text: Option<&[u8]>| text.map_or(0, <[u8]>::len);
    let entry = |entry: &P| 48 + len(entry.name()) + len(entry.value());
    entries.iter().map(entry).sum()
}

/// Changes to a request on its way upstream, and headers for the answer that comes back.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edits {
    pub(crate) path: Option<Bytes>,
    pub(crate) headers: Vec<Edit>,
    pub(crate) args: Vec<Edit>,
    pub(crate) response_headers: Vec<Edit>,
    pub(crate) body: Option<Bytes>,
}

impl Edits {
    /// Whether the request goes on as it came.
    pub(crate) fn is_empty(&self) -> bool {
        self.path.is_none()
            && self.headers.is_empty()
            && self.args.is_empty()
            && self.response_headers.is_empty()
            && self.body.is_none()
    }

    /// As the gateway is told.
    pub(crate) fn rewrite(&self) -> Rewrite<'_, Edit> {
        Rewrite {
            path: self.path.as_deref(),
            headers: &self.headers,
            args: &self.args,
            resp_headers: &self.response_headers,
            body: self.body.as_deref(),
        }
    }

    /// What they cost in a frame, at most.
    pub(crate) fn size(&self) -> usize {
        let blobs = [&self.path, &self.body].into_iter().flatten();
        let lists = [&self.headers, &self.args, &self.response_headers];
        blobs.map(Bytes::len).sum::<usize>() + lists.map(|list| size(list)).iter().sum::<usize>()
    }
}

/// The last word on a name wins, whoever said it and in whatever case.
pub(crate) fn put(list: &mut Vec<Edit>, edit: Edit) {
    match list.iter_mut().find(|known| known.is(&edit.name)) {
        Some(known) => *known = edit,
        None => list.push(edit),
    }
}
