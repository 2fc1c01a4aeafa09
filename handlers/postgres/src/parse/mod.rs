//! From the text of a request to what it asks for, before any look at the catalog.
//!
//! | module | reads |
//! |---|---|
//! | `name` | identifiers, JSON paths, casts |
//! | `select` | columns and embedded resources |
//! | `filter` | operators, values, `or`/`and` trees |
//! | `order` | order terms |
//! | [`ask`](Ask) | the query as a whole: which parameter is what |
//! | [`prefer`](Prefer) | the `Prefer` header |
//! | `accept` | the `Accept` and `Range` headers |
//! | [`csv`] | bodies of `text/csv` |
//!
//! Every parser is a grammar over the decoded value of one parameter. What does not
//! fit is refused with the place (counted in characters, from 1) and what would fit.

mod accept;
mod ask;
pub(crate) mod csv;
mod filter;
mod name;
mod order;
mod prefer;
mod select;

use postern_contract::Detail;
use winnow::Parser;
use winnow::error::{ContextError, StrContext, StrContextValue};

pub(crate) use accept::{Range, SINGLE, Shape};
pub(crate) use ask::key;
pub(crate) use ask::{Ask, Count, Scoped, Verb};
pub(crate) use filter::{Compare, Condition, FullText, Is, Operator, Quantifier, Tree, Value};
pub(crate) use name::{Field, Key, Step};
pub(crate) use order::{By, Nulls, Term};
pub(crate) use prefer::{Missing, Prefer, Resolution, Return};
pub(crate) use select::{Embed, Item, Join};

/// The longest identifier that PostgreSQL keeps whole.
pub(crate) const MAX_NAME: usize = 63;
/// Levels of `or`/`and`, and of embedded resources.
pub(crate) const MAX_DEPTH: usize = 10;
/// Conditions of one request.
pub(crate) const MAX_CONDITIONS: usize = 200;
/// Values of one `in` list or of one `any`/`all`.
pub(crate) const MAX_LIST: usize = 10_000;
/// Columns and embedded resources that one `select` names.
pub(crate) const MAX_ITEMS: usize = 500;
/// Terms of one `order`, names of one `columns` or `onConflict`.
pub(crate) const MAX_TERMS: usize = 32;
/// Steps of one JSON path.
pub(crate) const MAX_PATH: usize = 16;
/// Parameters of one query.
pub(crate) const MAX_PARAMETERS: usize = 500;

type Text<'i> = &'i str;
type Parsed<T> = winnow::ModalResult<T, ContextError>;

/// What would have fitted.
fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

/// Runs a grammar over the whole value of a parameter.
fn whole<'i, T>(
    field: &str,
    value: &'i str,
    grammar: impl Parser<Text<'i>, T, winnow::error::ErrMode<ContextError>>,
) -> Result<T, Detail> {
    let mut grammar = grammar;
    grammar.parse(value).map_err(|error| {
        let place = value
            .get(..error.offset())
            .map_or(0, |before| before.chars().count());
        let wanted: Vec<String> = error
            .inner()
            .context()
            .filter_map(|context| match context {
                StrContext::Expected(value) => Some(value.to_string()),
                _ => None,
            })
            .collect();
        let wanted = match wanted.as_slice() {
            [] => "nothing more".to_owned(),
            some => some.join(" or "),
        };
        Detail::new(
            shown(field),
            format!("is wrong at character {}: expected {wanted}", place + 1),
        )
    })
}

/// A name from outside, as far as messages show it.
pub(crate) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(64).collect()
}
