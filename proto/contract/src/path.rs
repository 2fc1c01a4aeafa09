//! How a path is cut into segments.
//!
//! The gateway shows the runner a path that it has normalised and decoded; the
//! upstream gets the client's bytes. So there are two readings, and only where
//! both give the same segments may a request be carried out.

use std::borrow::Cow;

use percent_encoding::percent_decode;

/// Why a path cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It does not start with `/`.
    #[error("the path must start with a slash")]
    NotAbsolute,
    /// A segment is not UTF-8 once decoded.
    #[error("the path must be UTF-8")]
    NotUtf8,
    /// A segment holds NUL.
    #[error("the path must not hold NUL")]
    Nul,
}

/// The segments of a path that is decoded already (the runner's reading).
///
/// # Errors
/// When the path is not absolute, not UTF-8 or holds NUL.
pub fn decoded_segments(path: &[u8]) -> Result<Vec<Cow<'_, str>>, PathError> {
    let path = std::str::from_utf8(path).map_err(|_| PathError::NotUtf8)?;
    if path.contains('\0') {
        return Err(PathError::Nul);
    }
    let path = path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    Ok(cut(path).map(Cow::Borrowed).collect())
}

/// Cuts at slashes, like `split`, which is made for longer pieces than a path's.
fn cut(path: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(path);
    std::iter::from_fn(move || {
        let path = rest?;
        let slash = path.bytes().position(|byte| byte == b'/');
        let (segment, behind) = match slash.and_then(|at| path.split_at_checked(at)) {
            Some((segment, behind)) => (segment, behind.get(1..)),
            None => (path, None),
        };
        rest = behind;
        Some(segment)
    })
}

/// The segments of a path as the client sent it: split, then decoded (a handler's reading).
///
/// # Errors
/// When the path is not absolute, or a decoded segment is not UTF-8 or holds NUL.
pub fn raw_segments(path: &str) -> Result<Vec<Cow<'_, str>>, PathError> {
    let path = path.strip_prefix('/').ok_or(PathError::NotAbsolute)?;
    cut(path)
        .map(|segment| {
            let text = percent_decode(segment.as_bytes())
                .decode_utf8()
                .map_err(|_| PathError::NotUtf8)?;
            if text.contains('\0') {
                Err(PathError::Nul)
            } else {
                Ok(text)
            }
        })
        .collect()
}
