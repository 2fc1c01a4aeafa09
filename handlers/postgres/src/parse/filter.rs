//! `col=not.eq.5`, `col=in.(1,2)`, `or=(a.eq.1,and(b.gt.2,c.is.null))`

use winnow::Parser;
use winnow::combinator::{
    alt, cut_err, delimited, opt, peek, preceded, repeat, separated, terminated,
};
use winnow::error::{ContextError, ErrMode};
use winnow::token::{none_of, rest, take_while};

use super::name::{Field, field, quoted};
use super::{MAX_DEPTH, MAX_LIST, Parsed, Text, expected};

/// Conditions, and how they hang together.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    /// One.
    One(Condition),
    /// Every one of them.
    All(Vec<Tree>),
    /// One of them at least.
    Any(Vec<Tree>),
    /// Not this.
    Not(Box<Tree>),
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    /// Of which table in a tree: `customers.name` names an embedded one.
    pub(crate) field: Field,
    /// Whether it is turned around.
    pub(crate) negated: bool,
    /// What is asked.
    pub(crate) operator: Operator,
}

/// What is asked of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operator {
    /// A comparison with a value, or with any or all of several.
    Compare(Compare, Value),
    /// One of these.
    In(Vec<String>),
    /// `is.null` and its like.
    Is(Is),
    /// Different, where null is a value as any other.
    IsDistinct(String),
    /// Full text.
    FullText {
        /// How the query is written.
        form: FullText,
        /// The text search configuration.
        config: Option<String>,
        /// The query.
        query: String,
    },
}

/// A comparison's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// One.
    One(String),
    /// Several.
    Each(Quantifier, Vec<String>),
}

/// How many of several values have to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quantifier {
    /// One at least.
    Any,
    /// Every one.
    All,
}

/// What `is` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Is {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// The forms of a full-text query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FullText {
    /// `to_tsquery`
    Query,
    /// `plainto_tsquery`
    Plain,
    /// `phraseto_tsquery`
    Phrase,
    /// `websearch_to_tsquery`
    Web,
}

/// The comparisons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compare {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    Ilike,
    Match,
    Imatch,
    Contains,
    Contained,
    Overlaps,
    Left,
    Right,
    NotRight,
    NotLeft,
    Adjacent,
}

/// Word, SQL operator, and whether `any`/`all` apply.
const COMPARISONS: [(&str, Compare, bool); 18] = [
    ("eq", Compare::Eq, true),
    ("neq", Compare::Neq, true),
    ("gt", Compare::Gt, true),
    ("gte", Compare::Gte, true),
    ("lt", Compare::Lt, true),
    ("lte", Compare::Lte, true),
    ("like", Compare::Like, true),
    ("ilike", Compare::Ilike, true),
    ("match", Compare::Match, true),
    ("imatch", Compare::Imatch, true),
    ("cs", Compare::Contains, false),
    ("cd", Compare::Contained, false),
    ("ov", Compare::Overlaps, false),
    ("sl", Compare::Left, false),
    ("sr", Compare::Right, false),
    ("nxr", Compare::NotRight, false),
    ("nxl", Compare::NotLeft, false),
    ("adj", Compare::Adjacent, false),
];

const FULL_TEXT: [(&str, FullText); 4] = [
    ("fts", FullText::Query),
    ("plfts", FullText::Plain),
    ("phfts", FullText::Phrase),
    ("wfts", FullText::Web),
];

/// Every operator, for messages.
const OPERATORS: &str = "an operator: eq neq gt gte lt lte like ilike match imatch in is isdistinct fts plfts phfts \
                         wfts cs cd ov sl sr nxr nxl adj, followed by a dot and a value";

/// Where a value stands decides how it ends.
#[derive(Clone, Copy)]
enum Place {
    /// To the end of the parameter.
    Alone,
    /// To the next `,` or `)` of a tree.
    InTree,
}

/// The value of `column=`: operator and value, the value to the end.
pub(super) fn alone(input: &mut Text<'_>) -> Parsed<(bool, Operator)> {
    operation(input, Place::Alone)
}

fn operation(input: &mut Text<'_>, place: Place) -> Parsed<(bool, Operator)> {
    let negated = opt("not.").parse_next(input)?.is_some();
    let word: &str = take_while(1.., |c: char| c.is_ascii_alphabetic())
        .context(expected(OPERATORS))
        .parse_next(input)?;
    let operator = match word {
        "in" => preceded(dot, cut_err(list))
            .map(Operator::In)
            .parse_next(input),
        "is" => preceded(dot, cut_err(is))
            .map(Operator::Is)
            .parse_next(input),
        "isdistinct" => preceded(dot, move |i: &mut Text<'_>| value(i, place))
            .map(Operator::IsDistinct)
            .parse_next(input),
        word => {
            if let Some((_, form)) = FULL_TEXT.iter().find(|(known, _)| *known == word) {
                full_text(input, *form, place)
            } else if let Some((_, compare, quantified)) =
                COMPARISONS.iter().find(|(known, ..)| *known == word)
            {
                comparison(input, *compare, *quantified, place)
            } else {
                Err(refused(OPERATORS))
            }
        }
    }?;
    Ok((negated, operator))
}

fn dot<'i>(input: &mut Text<'i>) -> Parsed<char> {
    '.'.context(expected("a dot and a value")).parse_next(input)
}

fn refused(what: &'static str) -> ErrMode<ContextError> {
    let mut error = ContextError::new();
    error.push(expected(what));
    ErrMode::Cut(error)
}

fn comparison(
    input: &mut Text<'_>,
    compare: Compare,
    quantified: bool,
    place: Place,
) -> Parsed<Operator> {
    let quantifier = alt((
        "(any)".value(Quantifier::Any),
        "(all)".value(Quantifier::All),
    ));
    let quantifier = if quantified {
        opt(quantifier).parse_next(input)?
    } else {
        None
    };
    dot.parse_next(input)?;
    match quantifier {
        Some(quantifier) => cut_err(braces)
            .map(|values| Operator::Compare(compare, Value::Each(quantifier, values)))
            .parse_next(input),
        None => value(input, place).map(|value| Operator::Compare(compare, Value::One(value))),
    }
}

fn full_text(input: &mut Text<'_>, form: FullText, place: Place) -> Parsed<Operator> {
    let config = delimited(
        '(',
        take_while(1..=64, |c: char| c.is_alphanumeric() || c == '_'),
        ')',
    );
    let config = opt(config).parse_next(input)?.map(str::to_owned);
    dot.parse_next(input)?;
    let query = value(input, place)?;
    Ok(Operator::FullText {
        form,
        config,
        query,
    })
}

fn is(input: &mut Text<'_>) -> Parsed<Is> {
    take_while(1.., |c: char| c.is_ascii_alphabetic() || c == '_')
        .verify_map(|word: &str| match word.to_ascii_lowercase().as_str() {
            "null" => Some(Is::Null),
            "not_null" => Some(Is::NotNull),
            "true" => Some(Is::True),
            "false" => Some(Is::False),
            "unknown" => Some(Is::Unknown),
            _ => None,
        })
        .context(expected("null, not_null, true, false or unknown"))
        .parse_next(input)
}

fn value(input: &mut Text<'_>, place: Place) -> Parsed<String> {
    let value = match place {
        Place::Alone => rest.map(str::to_owned).parse_next(input)?,
        Place::InTree => alt((ended_quote, array, plain)).parse_next(input)?,
    };
    if value.contains('\0') {
        return Err(refused("a value without the character NUL"));
    }
    Ok(value)
}

/// A quoted value, if the quotes are around all of it.
fn ended_quote(input: &mut Text<'_>) -> Parsed<String> {
    terminated(quoted, peek(alt((",", ")", winnow::combinator::eof)))).parse_next(input)
}

/// `{a,b}` within a tree: PostgreSQL's own array text, whose commas end nothing.
fn array(input: &mut Text<'_>) -> Parsed<String> {
    let inside = alt((
        quoted.take(),
        take_while(1.., |c| !matches!(c, '{' | '}' | '"')),
    ));
    delimited('{', repeat::<_, _, (), _, _>(0.., inside), '}')
        .take()
        .map(str::to_owned)
        .parse_next(input)
}

fn plain(input: &mut Text<'_>) -> Parsed<String> {
    take_while(0.., |c| !matches!(c, ',' | ')'))
        .map(str::to_owned)
        .parse_next(input)
}

/// `(a,"b,c",d)`
fn list(input: &mut Text<'_>) -> Parsed<Vec<String>> {
    let empty = "()".map(|_| Vec::new());
    let some = delimited('(', values(')'), ')');
    alt((empty, some))
        .context(expected(
            "a list of at most 10000 values in brackets: (a,\"b,c\")",
        ))
        .parse_next(input)
}

/// `{a,"b,c",d}`
fn braces(input: &mut Text<'_>) -> Parsed<Vec<String>> {
    let empty = "{}".map(|_| Vec::new());
    let some = delimited('{', values('}'), '}');
    alt((empty, some))
        .context(expected("at most 10000 values in braces: {a,\"b,c\"}"))
        .parse_next(input)
}

fn values<'i>(end: char) -> impl Parser<Text<'i>, Vec<String>, ErrMode<ContextError>> {
    move |input: &mut Text<'i>| {
        let closed =
            move |i: &mut Text<'i>| terminated(quoted, peek(alt((',', end)))).parse_next(i);
        let bare = take_while(0.., move |c| c != ',' && c != end && c != '\0').map(str::to_owned);
        let value = alt((closed, bare)).verify(|value: &String| !value.contains('\0'));
        separated(1..=MAX_LIST, value, ',').parse_next(input)
    }
}

/// The value of `or=` or `and=`: the members in brackets.
pub(super) fn members(input: &mut Text<'_>) -> Parsed<Vec<Tree>> {
    branch(input, 0)
}

fn branch(input: &mut Text<'_>, depth: usize) -> Parsed<Vec<Tree>> {
    if depth >= MAX_DEPTH {
        return Err(refused("at most 10 levels of or and and"));
    }
    let member = move |i: &mut Text<'_>| tree(i, depth);
    delimited(
        '('.context(expected("conditions in brackets")),
        cut_err(separated(1..=2 * super::MAX_CONDITIONS, member, ',')),
        cut_err(')').context(expected("another condition or )")),
    )
    .parse_next(input)
}

fn tree(input: &mut Text<'_>, depth: usize) -> Parsed<Tree> {
    let spaces = || winnow::ascii::space0::<Text<'_>, ErrMode<ContextError>>;
    spaces().parse_next(input)?;
    let word = (
        opt("not."),
        alt(("or".value(true), "and".value(false))),
        peek('('),
    );
    let tree = match opt(word).parse_next(input)? {
        Some((negated, any, _)) => {
            let members = branch(input, depth + 1)?;
            let tree = if any {
                Tree::Any(members)
            } else {
                Tree::All(members)
            };
            match negated {
                Some(_) => Tree::Not(Box::new(tree)),
                None => tree,
            }
        }
        None => {
            let field = terminated(field, dot)
                .context(expected("column.operator.value, or(…) or and(…)"))
                .parse_next(input)?;
            let (negated, operator) = operation(input, Place::InTree)?;
            Tree::One(Condition {
                field,
                negated,
                operator,
            })
        }
    };
    spaces().parse_next(input)?;
    Ok(tree)
}

impl Tree {
    /// How many conditions it holds.
    #[must_use]
    pub(crate) fn conditions(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Not(tree) => tree.conditions(),
            Self::All(trees) | Self::Any(trees) => trees.iter().map(Self::conditions).sum(),
        }
    }
}

/// A primary key in a path: one value as it is, or several, separated by commas and
/// quoted where they hold one.
pub(super) fn key_values(input: &mut Text<'_>) -> Parsed<Vec<String>> {
    let closed = terminated(quoted, peek(alt((",", winnow::combinator::eof))));
    let bare = repeat(0.., none_of(',')).map(|text: String| text);
    separated(1..=super::MAX_TERMS, alt((closed, bare)), ',').parse_next(input)
}
