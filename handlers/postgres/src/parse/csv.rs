//! Bodies of `text/csv` (RFC 4180): a header line with the columns, then a line a row.
//!
//! As in PostgREST, an unquoted `NULL` is null and everything else is text, which
//! PostgreSQL reads as the column's type.

use winnow::Parser;
use winnow::combinator::{alt, delimited, eof, repeat, separated, terminated};
use winnow::token::{take_till, take_while};

use super::{Parsed, Text, expected, whole};

/// A cell; none: null.
pub(crate) type Cell = Option<String>;

/// The columns and the rows.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Csv {
    /// The header's names.
    pub(crate) columns: Vec<String>,
    /// As many cells each.
    pub(crate) rows: Vec<Vec<Cell>>,
}

/// Columns of a body at most.
const MAX_COLUMNS: usize = 1_600;

/// Reads a body.
///
/// # Errors
/// Where it is no CSV, or which line has another number of cells.
pub(crate) fn read(text: &str) -> Result<Csv, postern_contract::Detail> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let wrong = |reason: String| postern_contract::Detail::new("body", reason);
    let mut records = whole("body", text, records)?.into_iter();
    let header = records.next().unwrap_or_default();
    let columns: Vec<String> = header.into_iter().map(Option::unwrap_or_default).collect();
    if columns.iter().any(String::is_empty) {
        return Err(wrong(
            "needs a first line with a name for every column".into(),
        ));
    }
    let mut rows = Vec::new();
    for (line, row) in records.enumerate() {
        if row.len() != columns.len() {
            let reason = format!(
                "record {} has {} cells where the header has {}",
                line + 1,
                row.len(),
                columns.len()
            );
            return Err(wrong(reason));
        }
        rows.push(row);
    }
    Ok(Csv { columns, rows })
}

fn records(input: &mut Text<'_>) -> Parsed<Vec<Vec<Cell>>> {
    let record = |input: &mut Text<'_>| -> Parsed<Vec<Cell>> {
        separated(1..=MAX_COLUMNS, cell, ',').parse_next(input)
    };
    let records = separated(1.., record, end_of_line);
    let mut records: Vec<Vec<Cell>> = terminated(records, eof)
        .context(expected("a cell, a comma or the end of a line"))
        .parse_next(input)?;
    // A last line's end begins no record.
    if records
        .last()
        .is_some_and(|last| matches!(last.as_slice(), [Some(cell)] if cell.is_empty()))
    {
        records.pop();
    }
    Ok(records)
}

fn end_of_line<'i>(input: &mut Text<'i>) -> Parsed<&'i str> {
    alt(("\r\n", "\n", "\r")).parse_next(input)
}

fn cell(input: &mut Text<'_>) -> Parsed<Cell> {
    let doubled = "\"\"".value("\"");
    let inside = repeat(0.., alt((take_while(1.., |c| c != '"'), doubled)));
    let quoted = delimited('"', inside, '"').map(|text: String| Some(text));
    let bare = take_till(0.., [',', '\r', '\n', '"']).map(|text: &str| match text {
        "NULL" => None,
        text => Some(text.to_owned()),
    });
    alt((quoted, bare)).parse_next(input)
}
