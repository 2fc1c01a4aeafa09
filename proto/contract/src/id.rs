//! Ids of control-plane resources: a prefix that names the kind and a ULID, so
//! that ids of one kind sort by creation.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be {prefix} followed by 26 characters of Crockford's base 32")]
pub struct IdError {
    prefix: &'static str,
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Ulid);

        impl $name {
            /// What the text form starts with.
            pub const PREFIX: &'static str = $prefix;
            /// Bytes of the text form.
            pub const LEN: usize = $prefix.len() + ulid::ULID_LEN;

            /// A new id, later than those made before.
            #[must_use]
            #[expect(clippy::new_without_default, reason = "each call gives another value")]
            pub fn new() -> Self {
                Self(Ulid::generate())
            }

            /// The least id of a time, in ms since the epoch: those made before sort before it.
            #[must_use]
            pub fn least_of(ms: u64) -> Self {
                Self(Ulid::from_parts(ms, 0))
            }

            /// The 128 bits behind the prefix.
            #[must_use]
            pub fn to_bits(self) -> u128 {
                u128::from(self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let error = IdError { prefix: $prefix };
                let ulid = text.strip_prefix($prefix).ok_or(error.clone())?;
                let ulid = Ulid::from_string(ulid).map_err(|_| error.clone())?;
                let id = Self(ulid);
                // Crockford's alphabet reads several spellings as one value. An id has one,
                // so that two texts never name the same thing to one side only.
                if id.to_string() == text { Ok(id) } else { Err(error) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A tenant: `tnt_` and a ULID.
    TenantId "tnt_"
);
id!(
    /// A workspace: `wks_` and a ULID.
    WorkspaceId "wks_"
);
id!(
    /// An entry of the audit trail: `aud_` and a ULID.
    AuditId "aud_"
);

/// What is told of a tenant, workspace or realm that is not there, or is another tenant's:
/// the same by whoever tells it. Any text may come as an id.
#[must_use]
pub fn not_found(what: &str, id: &str) -> String {
    let shown: String = id.chars().filter(|c| !c.is_control()).take(64).collect();
    format!("{what} {shown} not found")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn text_and_back() {
        let id = TenantId::new();
        assert_eq!(id.to_string().parse::<TenantId>().unwrap(), id);
        assert_eq!(serde_json::to_string(&id).unwrap(), format!("\"{id}\""));
        assert_eq!(
            serde_json::from_str::<TenantId>(&format!("\"{id}\"")).unwrap(),
            id
        );
    }

    #[test]
    fn the_least_id_of_a_time_lies_between() {
        let now = std::time::SystemTime::now();
        let ms = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        let ms = u64::try_from(ms.as_millis()).unwrap();
        let made = AuditId::new();
        assert!(AuditId::least_of(ms) <= made);
        assert!(AuditId::least_of(ms + 60_000).to_string() > made.to_string());
    }

    #[test]
    fn one_spelling_only() {
        let id = WorkspaceId::new().to_string();
        assert!(id.to_lowercase().parse::<WorkspaceId>().is_err());
        assert!(id.parse::<TenantId>().is_err(), "another kind's id");
        assert!("wks_".parse::<WorkspaceId>().is_err());
        assert!(
            "wks_0OOOOOOOOOOOOOOOOOOOOOOOOO"
                .parse::<WorkspaceId>()
                .is_err(),
            "O read as 0"
        );
        assert!(
            "wks_ZZZZZZZZZZZZZZZZZZZZZZZZZZ"
                .parse::<WorkspaceId>()
                .is_err(),
            "beyond 128 bits"
        );
    }
}
