//! Keys: master keys that only runners hold, and the keys derived from them,
//! one for each family, that handlers hold.
//!
//! Both kinds of file hold a key a line, `<kid> <base64 of 32 bytes>` for master keys
//! and `<kid> <family> <base64>` for a handler's; `#` starts a comment. The runner seals
//! with the first master key; a handler opens with any. So keys rotate without a gap: give
//! the handlers the new key, then put it first in the runners' file, then drop the old one.

use std::collections::BTreeMap;

use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postern_contract::Family;
use postern_contract::key_file::{self, KeyFileError, Secret};
use secrecy::zeroize::Zeroizing;

use crate::seal::VERSION;

/// Master keys: seal for every family.
pub struct SealingKeys {
    /// What every header begins with.
    prefix: String,
    /// By [`Family`], derived from the first master key.
    families: BTreeMap<Family, hmac::Key>,
    /// Every master key, for handing out derived ones.
    masters: Vec<(String, Secret)>,
}

/// Keys of some families: open what was sealed for them.
pub struct OpeningKeys {
    keys: Vec<(String, Family, hmac::Key)>,
}

impl SealingKeys {
    /// Reads a master key file.
    ///
    /// # Errors
    /// When a line is not `<kid> <base64 of 32 bytes>`, a kid stands twice, or no key is there.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let masters = key_file::parse(text)?;
        let (kid, master) = masters.first().ok_or(KeyFileError::Empty)?;
        let families = Family::ALL.map(|family| (family, mac_key(&derive(master, kid, family))));
        Ok(Self {
            prefix: format!("{VERSION}.{kid}."),
            families: families.into(),
            masters,
        })
    }

    /// The file that a handler of these families gets.
    #[must_use]
    pub fn opening_file(&self, families: &[Family]) -> String {
        let mut file = String::new();
        for (kid, master) in &self.masters {
            for family in families {
                let key = BASE64_STANDARD.encode(derive(master, kid, *family).as_slice());
                file.push_str(&format!("{kid} {family} {key}\n"));
            }
        }
        file
    }

    pub(crate) fn current(&self, family: Family) -> Option<(&str, &hmac::Key)> {
        Some((&self.prefix, self.families.get(&family)?))
    }
}

impl OpeningKeys {
    /// Reads a handler's key file.
    ///
    /// # Errors
    /// When a line is not `<kid> <family> <base64 of 32 bytes>`, or no key is there.
    pub fn parse(text: &str) -> Result<Self, KeyFileError> {
        let mut keys = Vec::new();
        for (line, fields) in key_file::lines(text) {
            let fail = |reason| KeyFileError::Line { line, reason };
            let [kid, family, key] = fields.as_slice() else {
                return Err(fail("is not `<kid> <family> <base64 of 32 bytes>`"));
            };
            let kid = key_file::kid_of(kid).map_err(fail)?;
            let family = family.parse().map_err(|_| fail("names no family"))?;
            keys.push((kid, family, mac_key(&key_file::secret(key).map_err(fail)?)));
        }
        if keys.is_empty() {
            Err(KeyFileError::Empty)
        } else {
            Ok(Self { keys })
        }
    }

    /// Whether there is a key for this family.
    #[must_use]
    pub fn opens(&self, family: Family) -> bool {
        self.keys.iter().any(|(_, of, _)| *of == family)
    }

    pub(crate) fn find(&self, kid: &str, family: Family) -> Option<&hmac::Key> {
        self.keys
            .iter()
            .find(|(k, of, _)| k == kid && *of == family)
            .map(|(_, _, key)| key)
    }
}

/// HKDF-SHA-256, salted with the kid; info names the purpose and the family.
fn derive(master: &Secret, kid: &str, family: Family) -> Secret {
    let mut key = Zeroizing::new([0; 32]);
    let info = [
        b"postern context v1 ".as_slice(),
        family.as_str().as_bytes(),
    ];
    let filled = Salt::new(HKDF_SHA256, kid.as_bytes())
        .extract(master.as_slice())
        .expand(&info, HKDF_SHA256)
        .and_then(|okm| okm.fill(key.as_mut_slice()));
    #[expect(
        clippy::expect_used,
        reason = "HKDF fails only for outputs above 255 blocks; this is one"
    )]
    filled.expect("HKDF of one block");
    key
}

fn mac_key(secret: &Secret) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_slice())
}
