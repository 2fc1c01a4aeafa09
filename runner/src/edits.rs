//! What a chain changes on a request: collected, encoded once, and only if there is anything.

use std::borrow::Cow;

use bytes::Bytes;

/// A name with its new value; `None` deletes the name.
pub(crate) type Edit = (Cow<'static, str>, Option<Bytes>);

/// Changes to a request on its way upstream, and headers for the answer that comes back.
#[derive(Debug, Default)]
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
}

/// The last word on a name wins, whoever said it and in whatever case.
pub(crate) fn set(list: &mut Vec<Edit>, name: Cow<'static, str>, value: Option<Bytes>) {
    match list
        .iter_mut()
        .find(|(known, _)| known.eq_ignore_ascii_case(&name))
    {
        Some(known) => *known = (name, value),
        None => list.push((name, value)),
    }
}
