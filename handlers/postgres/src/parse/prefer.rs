//! The `Prefer` header (RFC 7240).

use postern_contract::Detail;

use super::{Count, Shape, shown};

/// What a client would like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Prefer {
    /// Whether the rows are answered.
    pub(crate) returns: Option<Return>,
    /// What becomes of duplicates.
    pub(crate) resolution: Option<Resolution>,
    /// What a column gets that a row of the body leaves out.
    pub(crate) missing: Missing,
    /// How many rows may be changed.
    pub(crate) max_affected: Option<u64>,
    /// How a list's total is found out.
    pub(crate) count: Option<Count>,
    /// How the rows are laid out: the `Accept` header.
    pub(crate) shape: Shape,
}

/// Whether the rows are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Return {
    /// Their number only.
    Minimal,
    /// They themselves.
    Representation,
}

/// What becomes of duplicates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// The row there takes the new values.
    Merge,
    /// The row there stays.
    Ignore,
}

/// What a column gets that a row leaves out while another row names it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Null.
    #[default]
    Null,
    /// Its default.
    Default,
}

impl Prefer {
    /// Reads every `Prefer` header. Preferences that are not ours are left alone, as the
    /// RFC has it; ours with a value that is none are refused.
    ///
    /// # Errors
    /// The preference that is wrong.
    pub(crate) fn read<'h>(headers: impl Iterator<Item = &'h str>) -> Result<Self, Detail> {
        let mut prefer = Self::default();
        for preference in headers.flat_map(|header| header.split(',')) {
            let preference = preference.split(';').next().unwrap_or_default();
            let (name, value) = preference.split_once('=').unwrap_or((preference, ""));
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            let wrong = |rule: &str| {
                let reason = format!("{} must be {rule}", shown(name));
                Err(Detail::new("Prefer", reason))
            };
            match (name.to_ascii_lowercase().as_str(), value) {
                ("return", "minimal") => prefer.returns = Some(Return::Minimal),
                ("return", "representation") => prefer.returns = Some(Return::Representation),
                ("return", "headers-only") => prefer.returns = Some(Return::Minimal),
                ("return", _) => return wrong("minimal or representation"),
                ("resolution", "merge-duplicates") => prefer.resolution = Some(Resolution::Merge),
                ("resolution", "ignore-duplicates") => prefer.resolution = Some(Resolution::Ignore),
                ("resolution", _) => return wrong("merge-duplicates or ignore-duplicates"),
                ("missing", "default") => prefer.missing = Missing::Default,
                ("missing", "null") => prefer.missing = Missing::Null,
                ("missing", _) => return wrong("default or null"),
                ("count", word) => match Count::read(word) {
                    Some(count) => prefer.count = Some(count),
                    None => return wrong("exact, planned, estimated or none"),
                },
                ("max-affected", number) => match number.parse() {
                    Ok(number) => prefer.max_affected = Some(number),
                    Err(_) => return wrong("a whole number from 0"),
                },
                _ => {}
            }
        }
        Ok(prefer)
    }

    /// Those that were given, as `Preference-Applied` tells them.
    pub(crate) fn applied(&self) -> String {
        let returns = self.returns.map(|returns| match returns {
            Return::Minimal => "return=minimal".to_owned(),
            Return::Representation => "return=representation".to_owned(),
        });
        let resolution = self.resolution.map(|resolution| match resolution {
            Resolution::Merge => "resolution=merge-duplicates".to_owned(),
            Resolution::Ignore => "resolution=ignore-duplicates".to_owned(),
        });
        let missing = (self.missing == Missing::Default).then(|| "missing=default".to_owned());
        let most = self.max_affected.map(|most| format!("max-affected={most}"));
        let count = self.count.map(|count| format!("count={}", count.word()));
        let all = [returns, resolution, missing, most, count];
        all.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}
