//! A plan, written down: the one place where statements are made.
//!
//! [`Sql`] takes three kinds of pieces, and nothing else: words of this crate
//! (`&'static str`), identifiers, which it quotes, and values, which it binds. So no
//! input can change the structure of a statement.

mod fits;
mod read;
#[cfg(test)]
#[expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is a failed test"
)]
mod tests;
mod write;

use postern_contract::Detail;

use crate::plan::Unplanned;

pub(crate) use fits::{MAX_ROW, is_overflow};
pub(crate) use read::{MAX_KEY, count, estimate, exists, list};
pub(crate) use write::{call, insert, remove, update};

/// A statement and its values. Each value is text that PostgreSQL reads as the type
/// that the statement casts it to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sql {
    /// The statement.
    pub(crate) text: String,
    /// `$1`, `$2`, …; none: null.
    pub(crate) values: Vec<Option<String>>,
    /// Whether it measures what it makes: an overflow may be that of a size.
    pub(crate) measures: bool,
    aliases: usize,
    subselects: usize,
    fits: fits::Fits,
}

/// Subselects and joins of one statement at most. What PostgreSQL needs to plan it grows
/// with them; writing stops there, however much the plan holds still.
const MAX_SUBSELECTS: usize = 64;
/// Bytes of a statement's text at most, its values aside.
const MAX_STATEMENT: usize = 512 << 10;

/// A table in a statement: `t0`, `t1`, …
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Alias(usize);

impl Alias {
    /// The join of this place, beside the table.
    fn beside(self, join: usize) -> Self {
        Self(self.0 + 1 + join)
    }
}

impl Sql {
    /// The statement, if it is no larger than one may be.
    fn whole(self) -> Result<Self, Unplanned> {
        let reason = if self.subselects > MAX_SUBSELECTS {
            format!(
                "takes more than {MAX_SUBSELECTS} subselects; embed fewer resources, and order and filter by fewer"
            )
        } else if self.text.len() > MAX_STATEMENT {
            format!("makes a statement above {MAX_STATEMENT} bytes; name fewer columns")
        } else {
            return Ok(self);
        };
        Err(Unplanned::Invalid(Detail::new("select", reason)))
    }

    /// Whether there is room for one subselect more.
    fn subselect(&mut self) -> bool {
        self.subselects += 1;
        self.subselects <= MAX_SUBSELECTS && self.text.len() <= MAX_STATEMENT
    }

    /// A number of ours.
    fn number(&mut self, number: usize) -> &mut Self {
        self.text.push_str(&number.to_string());
        self
    }

    /// Words of this crate.
    pub(crate) fn word(&mut self, word: &'static str) -> &mut Self {
        self.text.push_str(word);
        self
    }

    /// SQL that the catalog gave: types and defaults, which PostgreSQL has quoted itself.
    pub(crate) fn catalog(&mut self, sql: &str) -> &mut Self {
        self.text.push_str(sql);
        self
    }

    /// An identifier, quoted.
    pub(crate) fn name(&mut self, name: &str) -> &mut Self {
        self.text.push('"');
        for c in name.chars() {
            if c == '"' {
                self.text.push('"');
            }
            self.text.push(c);
        }
        self.text.push('"');
        self
    }

    /// `"schema"."name"`
    pub(crate) fn qualified(&mut self, schema: &str, name: &str) -> &mut Self {
        self.name(schema).word(".").name(name)
    }

    /// `t0."column"`
    pub(crate) fn column(&mut self, of: Alias, column: &str) -> &mut Self {
        self.alias(of).word(".").name(column)
    }

    /// `t0`
    pub(crate) fn alias(&mut self, alias: Alias) -> &mut Self {
        self.text.push('t');
        self.text.push_str(&alias.0.to_string());
        self
    }

    /// A table's name in the statement that is free still.
    pub(crate) fn fresh(&mut self) -> Alias {
        self.fresh_with(0)
    }

    /// The same, with as many joins beside it.
    fn fresh_with(&mut self, joins: usize) -> Alias {
        let alias = Alias(self.aliases);
        self.aliases += 1 + joins;
        alias
    }

    /// `$1::type`: a value, bound, read as this type of the catalog.
    pub(crate) fn value(&mut self, value: impl Into<Option<String>>, cast: &str) -> &mut Self {
        self.values.push(value.into());
        self.text.push('$');
        self.text.push_str(&self.values.len().to_string());
        self.text.push_str("::");
        self.text.push_str(cast);
        self
    }

    /// Pieces with words between.
    pub(crate) fn between<T>(
        &mut self,
        word: &'static str,
        pieces: impl IntoIterator<Item = T>,
        mut piece: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (place, one) in pieces.into_iter().enumerate() {
            if place > 0 {
                self.word(word);
            }
            piece(self, one);
        }
        self
    }
}
