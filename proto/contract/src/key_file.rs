//! Files of secret keys: one key a line, its `kid` first, `#` starts a comment.
//!
//! The first key is the one in use, the others are still read: so keys rotate
//! without a gap.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use secrecy::zeroize::Zeroizing;

/// 32 secret bytes, wiped when dropped.
pub type Secret = Zeroizing<[u8; 32]>;

/// Why a key file cannot be used. No message holds key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// A line is not of the form.
    #[error("line {line}: {reason}")]
    Line {
        /// From 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// There is no key in it.
    #[error("holds no key")]
    Empty,
}

/// The keys of a file of `<kid> <base64 of 32 bytes>`.
///
/// # Errors
/// When a line is not of the form, a kid stands twice, or no key is there.
pub fn parse(text: &str) -> Result<Vec<(String, Secret)>, KeyFileError> {
    let mut keys: Vec<(String, Secret)> = Vec::new();
    for (line, fields) in lines(text) {
        let fail = |reason| KeyFileError::Line { line, reason };
        let [kid, key] = fields.as_slice() else {
            return Err(fail("is not `<kid> <base64 of 32 bytes>`"));
        };
        let kid = kid_of(kid).map_err(fail)?;
        if keys.iter().any(|(known, _)| *known == kid) {
            return Err(fail("the kid stands twice"));
        }
        keys.push((kid, secret(key).map_err(fail)?));
    }
    if keys.is_empty() {
        Err(KeyFileError::Empty)
    } else {
        Ok(keys)
    }
}

/// The fields of each line that holds any, with the line's number.
pub fn lines(text: &str) -> impl Iterator<Item = (usize, Vec<&str>)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| {
            (
                at + 1,
                line.split('#')
                    .next()
                    .unwrap_or("")
                    .split_whitespace()
                    .collect::<Vec<_>>(),
            )
        })
        .filter(|(_, fields)| !fields.is_empty())
}

/// A key's id: it travels in headers and rows.
///
/// # Errors
/// When it is longer than 64 or holds other than `A-Z a-z 0-9 - _`.
pub fn kid_of(text: &str) -> Result<String, &'static str> {
    let form = text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    if form && text.len() <= 64 {
        Ok(text.to_owned())
    } else {
        Err("a kid is at most 64 of A-Z a-z 0-9 - _")
    }
}

/// 32 bytes in base64, with or without padding.
///
/// # Errors
/// When it is not that.
pub fn secret(text: &str) -> Result<Secret, &'static str> {
    let bytes = BASE64_STANDARD_NO_PAD
        .decode(text.trim_end_matches('='))
        .map(Zeroizing::new)
        .map_err(|_| "the key is not base64")?;
    let key: [u8; 32] = bytes
        .as_slice()
        .try_into()
        .map_err(|_| "the key is not of 32 bytes")?;
    Ok(Zeroizing::new(key))
}
