//! Who asks, with what all requests of one token share: worked out by the first of them,
//! and kept as long as the token is remembered.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use postern_context::{TokenFields, TokenView};

use crate::facts::Identity;

/// Who asks. It cannot be changed, because more is kept than what is seen of it.
#[derive(Clone, Debug)]
pub struct Caller(Arc<Known>);

#[derive(Debug)]
struct Known {
    identity: Identity,
    fields: OnceLock<TokenFields>,
    name: OnceLock<Name>,
}

/// What limits call the caller: a hash, and the seeds that it was made with.
#[derive(Debug)]
struct Name {
    seeds: [u64; 2],
    hash: [u64; 2],
}

impl From<Identity> for Caller {
    fn from(identity: Identity) -> Self {
        Self(Arc::new(Known {
            identity,
            fields: OnceLock::new(),
            name: OnceLock::new(),
        }))
    }
}

impl Deref for Caller {
    type Target = Identity;

    fn deref(&self) -> &Identity {
        &self.0.identity
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Caller {}

impl Caller {
    /// What it contributes to sealed contexts.
    pub(crate) fn fields(&self) -> &TokenFields {
        self.0.fields.get_or_init(|| {
            let who = TokenView {
                issuer: &self.issuer,
                subject: &self.subject,
                tenant: self.tenant.as_deref().unwrap_or_default(),
                workspace: self.workspace.as_deref().unwrap_or_default(),
                roles: &self.roles,
                scopes: &self.scopes,
                token_expires_at: u64::try_from(self.expires_at).unwrap_or_default(),
                session: self.session.as_deref().unwrap_or_default(),
            };
            who.encode()
        })
    }

    /// What limits call it, by these seeds.
    pub(crate) fn name(&self, seeds: [u64; 2], hash: impl Fn(&Identity) -> [u64; 2]) -> [u64; 2] {
        let make = || Name {
            seeds,
            hash: hash(self),
        };
        let known = self.0.name.get_or_init(make);
        match known.seeds == seeds {
            true => known.hash,
            // A process has one pair of seeds; this is for those that have more.
            false => hash(self),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_worked_out_once_for_one_pair_of_seeds() {
        let caller = Caller::from(Identity::default());
        assert_eq!(caller.name([1, 2], |_| [3, 4]), [3, 4]);
        assert_eq!(caller.clone().name([1, 2], |_| [5, 6]), [3, 4]);
        assert_eq!(caller.name([1, 3], |_| [5, 6]), [5, 6]);
        assert_eq!(caller.name([1, 2], |_| [5, 6]), [3, 4]);
    }
}
