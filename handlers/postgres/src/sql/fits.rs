//! What leaves PostgreSQL, and what it holds while it makes it, is bounded in PostgreSQL.
//!
//! A row of an answer arrives whole before anybody here can measure it, so its text is cut
//! above the bound (`::varchar(n)`, which looks at nothing but the length where it fits), and
//! a row that was cut is refused. What goes into it is measured before it is made: lists
//! of embedded rows as they grow, other rows where they have many long columns. SQL has no
//! word for "refuse", so
//!
//! ```sql
//! sum(octet_length("note")::float4 * k)      -- k: the greatest float4 / the bound
//! ```
//! runs over where the bytes are more than the bound: an error of the class 22, which
//! [`is_overflow`] tells from others. Texts need not be read for their length.

use std::sync::Arc;

use tokio_postgres::error::DbError;

use super::Sql;
use crate::plan::{Embedded, Output, Place, Rows, Shown};

/// The bounds of one statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fits {
    /// Bytes of a row.
    row: usize,
    /// Bytes of an embedded row or list.
    embedded: usize,
    /// Whether so many columns may be long that rows are measured before they are made.
    many: bool,
}

/// Bytes of one row at most, whatever the answer's bound: the longest text that a cast cuts.
pub(crate) const MAX_ROW: usize = 10 << 20;
/// A row with no more columns that may be long is made, then measured.
const MANY: usize = 8;
/// Lists are never all full: together they may hold so many times what the row may.
const TOGETHER: usize = 4;

/// What is embedded on all levels, and the columns that may be long.
#[derive(Default)]
struct Weight {
    embedded: usize,
    columns: usize,
}

impl Fits {
    /// The bounds for rows that show this, where an answer has so many bytes.
    pub(super) fn of(rows: &Rows, most: usize) -> Self {
        let mut weight = Weight::default();
        weigh(rows, &mut weight);
        Self {
            row: most,
            embedded: most.min(most.saturating_mul(TOGETHER) / weight.embedded.max(1)),
            many: weight.columns > MANY,
        }
    }

    /// The bounds where nothing is known of what comes.
    pub(super) fn row(most: usize) -> Self {
        Self {
            row: most,
            embedded: most,
            many: false,
        }
    }
}

fn weigh(rows: &Rows, weight: &mut Weight) {
    for output in &rows.outputs {
        weight.columns += usize::from(is_wide(rows, &output.value));
        if let Shown::Embedded(embedded) = &output.value {
            weight.embedded += 1;
            weigh(&embedded.rows, weight);
        }
    }
}

/// Whether a value may be of any length.
fn is_wide(rows: &Rows, value: &Shown) -> bool {
    match value {
        Shown::Place(place, None) | Shown::Compared(place) => place.wide,
        Shown::Place(place, Some(cast)) => {
            place.wide && matches!(*cast, "text" | "varchar" | "numeric" | "json" | "jsonb")
        }
        Shown::Count => false,
        Shown::Embedded(embedded) if embedded.many => !counts(embedded),
        Shown::Embedded(embedded) => has_wide(&embedded.rows),
        Shown::Joined(joined) => rows.joins.get(joined.join).is_some_and(|join| {
            let value = join.outputs.get(joined.output);
            value.is_some_and(|value| is_wide(&join.embedded.rows, value))
        }),
    }
}

/// Whether a list is one row with a number.
pub(super) fn counts(embedded: &Arc<Embedded>) -> bool {
    matches!(embedded.rows.outputs.as_slice(), [one] if matches!(one.value, Shown::Count))
}

fn has_wide(rows: &Rows) -> bool {
    let mut outputs = rows.outputs.iter();
    outputs.any(|output| is_wide(rows, &output.value))
}

/// Whether the length is known without reading the value.
fn is_text(value: &Shown) -> bool {
    let plain = |place: &Place| place.found().is_text() || place.found().name == "bytea";
    match value {
        Shown::Place(_, Some(cast)) => matches!(*cast, "text" | "varchar"),
        Shown::Place(place, None) => plain(place),
        _ => false,
    }
}

impl Sql {
    /// `::varchar(n)`: the row's text, cut where it is longer than it may be.
    pub(super) fn cut(&mut self) -> &mut Self {
        let most = self.fits.row.saturating_add(1).min(MAX_ROW);
        self.word("::varchar(").number(most).word(")")
    }

    /// ` HAVING …` of a list of embedded rows `r`, where they may be long.
    pub(super) fn list_fits(&mut self, rows: &Rows) {
        if has_wide(rows) {
            self.word(" HAVING coalesce(sum(");
            self.size(rows, self.fits.embedded);
            self.word("), 0) >= 0");
        }
    }

    /// ` WHERE …` of an embedded row `r`, where there are many that may be long.
    pub(super) fn embedded_fits(&mut self, rows: &Rows) {
        if self.fits.many && has_wide(rows) {
            self.word(" WHERE ");
            self.size(rows, self.fits.embedded);
            self.word(" IS NOT NULL");
        }
    }

    /// The same of a row of the answer.
    pub(super) fn row_fits(&mut self, rows: &Rows) {
        if self.fits.many && has_wide(rows) {
            self.word(" WHERE ");
            self.size(rows, self.fits.row);
            self.word(" IS NOT NULL");
        }
    }

    /// The bytes of what may be long, as a number that runs over above `most`.
    fn size(&mut self, rows: &Rows, most: usize) {
        self.measures = true;
        let wide = |output: &&Output| is_wide(rows, &output.value);
        let wide = rows.outputs.iter().filter(wide);
        self.word("(")
            .between(" + ", wide, |sql, output| {
                sql.word("coalesce(octet_length(r.").name(&output.name);
                sql.word(if is_text(&output.value) { "" } else { "::text" });
                sql.word("), 0)");
            })
            .word(")::float4 * ")
            .value(
                (f32::MAX / most.max(1) as f32).to_string(),
                "pg_catalog.float4",
            );
    }
}

/// Whether an error is that of a size that ran over.
pub(crate) fn is_overflow(said: &DbError) -> bool {
    said.code().code() == "22003" && said.routine() == Some("float_overflow_error")
}
