//! No input makes a statement whose structure is another than its plan's.

use std::sync::Arc;

use proptest::prelude::*;

use super::{MAX_STATEMENT, MAX_SUBSELECTS, Sql, count, list};
use crate::catalog::{Catalog, Column, Key, Kind, Reference, Table, Type};
use crate::parse::{Ask, Verb};
use crate::plan::Planner;

fn column(name: &str, of: &str, category: char) -> Column {
    Column {
        name: name.into(),
        shown_type: of.into(),
        declared: format!("pg_catalog.{of}"),
        base: Type {
            name: of.into(),
            sql: format!("pg_catalog.{of}"),
            array: Some(format!("pg_catalog._{of}")),
            category,
        },
        not_null: name == "id",
        default: None,
        identity: None,
        generated: false,
    }
}

fn table(name: &str, references: Vec<Reference>) -> Table {
    Table {
        schema: "ws_1".into(),
        name: name.into(),
        kind: Kind::Table,
        protected: true,
        own: true,
        comment: None,
        columns: vec![
            column("id", "int8", 'N'),
            column("name", "text", 'S'),
            column("data", "jsonb", 'U'),
            column("customer_id", "int8", 'N'),
            column("odd \"one", "text", 'S'),
        ],
        keys: vec![Key {
            name: format!("{name}_pkey"),
            primary: true,
            columns: vec!["id".into()],
        }],
        references,
        indexes: Vec::new(),
    }
}

fn catalog() -> Catalog {
    let reference = Reference {
        name: "orders_customer_id_fkey".into(),
        columns: vec!["customer_id".into()],
        target: "customers".into(),
        target_columns: vec!["id".into()],
        on_delete: 'a',
    };
    let boss = Reference {
        name: "staff_customer_id_fkey".into(),
        target: "staff".into(),
        ..reference.clone()
    };
    let tables = vec![
        table("orders", vec![reference]),
        table("customers", Vec::new()),
        table("staff", vec![boss]),
    ];
    Catalog::new("ws_1".into(), "v".into(), None, tables, Vec::new())
}

/// The statement for these parameters; none: they are refused.
fn statement(pairs: &[(&str, String)]) -> Option<Vec<Sql>> {
    statement_of("orders", pairs)
}

fn statement_of(table: &str, pairs: &[(&str, String)]) -> Option<Vec<Sql>> {
    let catalog = catalog();
    let pairs: Vec<_> = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let ask = Ask::read(Verb::List, &pairs).ok()?;
    let planner = Planner {
        catalog: &catalog,
        max_rows: 100,
    };
    let table: &Arc<Table> = planner.table(table).ok()?;
    let mut rows = planner.rows(table, &ask).ok()?;
    let counted = count(&rows, None).ok()?;
    planner.page(&mut rows, 20, 0);
    Some(vec![list(&rows, false, 8 << 20).ok()?, counted])
}

/// A statement without what its identifiers are called, with what they are called aside.
/// None: quotes that do not end, a text literal, or a comment.
fn skeleton(text: &str) -> Option<(String, Vec<String>)> {
    let (mut bare, mut names) = (String::new(), Vec::new());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => {
                let mut name = String::new();
                loop {
                    match rest.next()? {
                        '"' if rest.peek() == Some(&'"') => {
                            rest.next();
                            name.push('"');
                        }
                        '"' => break,
                        c => name.push(c),
                    }
                }
                names.push(name);
                bare.push('I');
            }
            ';' | '\\' | '\0' => return None,
            '-' if rest.peek() == Some(&'-') => return None,
            '/' if rest.peek() == Some(&'*') => return None,
            c => bare.push(c),
        }
    }
    // The one literal of this crate.
    let bare = bare.replace("'[]'::json", "");
    (!bare.contains('\'')).then_some((bare, names))
}

fn values(sql: &Sql) -> Vec<&str> {
    sql.values.iter().flatten().map(String::as_str).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// A value changes what is bound, and nothing of the statement.
    #[test]
    fn values_are_bound(value in "\\PC{0,40}", key in "[^\"\\\\\0]{1,20}") {
        let quoted = value.replace('\\', "\\\\").replace('"', "\\\"");
        let ask = |value: &str, quoted: &str, key: &str| statement(&[
            ("name", format!("eq.{value}")),
            ("id", format!("in.(\"{quoted}\",1)")),
            ("or", format!("(name.like.\"{quoted}\",name.eq(any).{{\"{quoted}\"}},data->>\"{key}\".eq.\"{quoted}\")")),
            ("select", format!("id,x:data->\"{key}\"->>a,customers(name)")),
            ("customers.name", format!("not.ilike.{value}")),
            ("order", format!("data->>\"{key}\".desc,id")),
        ]);
        let plain = ask("v", "v", "k").expect("a plain request is good");
        let wild = ask(&value, &quoted, &key).expect("any value is good");
        for (plain, wild) in plain.iter().zip(&wild) {
            prop_assert_eq!(&plain.text, &wild.text);
            prop_assert!(skeleton(&wild.text).is_some());
            prop_assert!(values(wild).contains(&value.as_str()));
        }
    }

    /// An alias changes one identifier, and nothing else.
    #[test]
    fn aliases_are_quoted(alias in "[^\\\\\0]{1,15}") {
        prop_assume!(!alias.trim_matches(' ').is_empty() && alias.len() <= 63);
        prop_assume!(!["id", "name"].contains(&alias.trim_matches(' ')));
        let quoted = alias.replace('"', "\\\"");
        let ask = |alias: &str| statement(&[("select", format!("\"{alias}\":id,name"))]);
        let (plain, wild) = (ask("plain").unwrap(), ask(&quoted).unwrap());
        let (plain_bare, _) = skeleton(&plain[0].text).unwrap();
        let (wild_bare, names) = skeleton(&wild[0].text).unwrap();
        prop_assert_eq!(plain_bare, wild_bare);
        prop_assert!(names.iter().any(|name| name == alias.trim_matches(' ')));
    }

    /// Whatever a request says: it is refused, or its statement has only words of ours,
    /// names of the catalog, and aliases that are quoted.
    #[test]
    fn nothing_else_gets_in(
        name in "[a-z\"().>!*:, -]{0,24}", value in "[a-z0-9\"'();.,{}>!*:$ -]{0,40}",
        select in "[a-z\"'();.,>!*: -]{0,40}", order in "[a-z\"'();.,>: -]{0,30}",
    ) {
        let filters = [(name.as_str(), value.clone())];
        let parts = [
            vec![("select", select.clone())], vec![("order", order.clone())],
            vec![("or", value.clone())], vec![("and", format!("({value})"))],
            vec![("name", value.clone())], filters.to_vec(),
        ];
        for part in parts {
            for sql in statement(&part).unwrap_or_default() {
                prop_assert!(skeleton(&sql.text).is_some(), "{}", sql.text);
            }
        }
    }
}

/// The parser's own bounds, where no line limit stands before them.
#[test]
fn bounds() {
    let list = |n: usize| statement(&[("id", format!("in.({})", vec!["1"; n].join(",")))]);
    assert!(list(10_000).is_some());
    assert!(list(100_000).is_none());
    let nested = |n: usize| {
        statement(&[(
            "or",
            format!("{}id.eq.1{}", "(or".repeat(n) + "(", ")".repeat(n + 1)),
        )])
    };
    assert!(nested(5).is_some());
    for n in [10, 5_000, 100_000] {
        assert!(nested(n).is_none());
    }
    let embeds = |n: usize| {
        statement(&[(
            "select",
            format!("{}id{}", "customers(".repeat(n), ")".repeat(n)),
        )])
    };
    assert!(embeds(1).is_some());
    assert!(embeds(100_000).is_none());
    // One array is one value, however many it holds.
    let sql = list(10_000).unwrap();
    assert!(sql.iter().all(|sql| sql.values.len() <= 2));
}

/// What a statement makes PostgreSQL plan.
fn subselects(sql: &Sql) -> usize {
    sql.text.matches(" FROM \"ws_1\"").count()
}

/// `p:staff!customer_id(…)`, or with three dots before it, so many times around a core.
fn nested(levels: usize, open: &str, core: &str) -> String {
    format!("{}{core}{}", open.repeat(levels), ")".repeat(levels))
}

/// However a request nests and repeats, what is made of it grows no faster than it does.
#[test]
fn nesting_stays_linear() {
    let embed = "id,p:staff!customer_id(";
    let way = |levels: usize| vec!["p"; levels].join(".");
    // Columns of a row nine levels up stand among its own.
    let spread = |levels| nested(levels, "...staff!customer_id(", "*");
    let sql = statement_of("staff", &[("select", spread(9))]).unwrap();
    assert_eq!(subselects(&sql[0]), 1 + 9);
    // An order by each level's row, each said twelve times.
    let ordered = |levels: usize| {
        let mut pairs = vec![("select".to_owned(), nested(levels, embed, "id"))];
        for level in 0..levels {
            let dot = if level > 0 { "." } else { "" };
            let name = format!("{}{dot}order", way(level));
            pairs.push((name, ["p(id)"; 12].join(",")));
        }
        pairs
    };
    // A condition on each level's row, said as often as requests may.
    let filtered = |levels: usize, times: usize| {
        let mut pairs = vec![("select".to_owned(), nested(levels, embed, "id"))];
        for level in 1..=levels {
            let name = format!("{}{}", "p.".repeat(level - 1), "p");
            pairs.extend(vec![(name, "not.is.null".to_owned()); times]);
        }
        pairs
    };
    for levels in 1..=9 {
        for pairs in [ordered(levels), filtered(levels, 6), filtered(levels, 20)] {
            let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
            let sql = statement_of("staff", &pairs).unwrap();
            assert!(
                subselects(&sql[0]) <= 1 + levels * (levels + 3) / 2,
                "{levels}"
            );
        }
    }
}

/// What would be too much is refused, and never written down before that.
#[test]
fn statements_have_a_bound() {
    let embeds = |n: usize| (0..n).map(|n| format!("e{n}:customers(id)"));
    let select = |n: usize| [("select", embeds(n).collect::<Vec<_>>().join(","))];
    assert!(statement(&select(64)).is_some());
    assert!(statement(&select(65)).is_none());
    let repeats = |n: usize, column: &str| {
        let names: Vec<_> = (0..n).map(|n| format!("a{n}:{column}")).collect();
        [("select", names.join(","))]
    };
    assert!(statement(&repeats(8, "name")).is_some());
    for column in ["name", "data", "data->a->b"] {
        assert!(statement(&repeats(9, column)).is_none(), "{column}");
    }
    assert!(statement(&repeats(400, "id")).is_some());
    // The same column on another level is the same column.
    let levels =
        "a:name,c:customers(orders(b:name,c:name,d:name,e:name,f:name,g:name,h:name,i:name))";
    assert!(statement(&[("select", levels.to_owned())]).is_none());
    // Each level names four hundred columns.
    let columns: Vec<_> = (0..400).map(|n| format!("a{n}:id")).collect();
    let open = format!("{},p:staff!customer_id(", columns.join(","));
    assert!(statement_of("staff", &[("select", nested(3, &open, "id"))]).is_some());
    assert!(statement_of("staff", &[("select", nested(5, &open, "id"))]).is_none());
}

/// Lists of embedded rows are measured as they grow where they may be long.
#[test]
fn long_lists_are_measured() {
    let embedded = |columns: &str| {
        let select = format!("id,orders({columns})");
        statement_of("customers", &[("select", select)])
            .unwrap()
            .remove(0)
    };
    assert!(embedded("id,name").measures);
    assert!(embedded("id,customers(id)").text.matches("HAVING").count() == 0);
    assert!(!embedded("id,customer_id").measures);
    assert!(embedded("customers(name)").measures);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is nested in whatever: what is planned and written has its bounds.
    #[test]
    fn requests_of_any_shape_have_a_bound(
        shape in proptest::collection::vec((0..4_usize, 0..3_usize, 0..12_usize), 1..9),
    ) {
        let (mut select, mut pairs) = ("*".to_owned(), Vec::new());
        for (depth, (width, kind, times)) in shape.iter().enumerate() {
            let spread = if *kind == 0 { "..." } else { "" };
            let inner: Vec<_> = (0..=*width)
                .map(|n| match spread {
                    "" => format!("e{n}:staff!customer_id({select})"),
                    _ => format!("...staff!customer_id(s{depth}x{n}:id)"),
                })
                .collect();
            select = format!("k{depth}:id,{}", inner.join(","));
            let way = vec!["e0"; shape.len() - 1 - depth].join(".");
            let at = |last: &str| if way.is_empty() { last.to_owned() } else { format!("{way}.{last}") };
            pairs.extend(vec![(at("e0"), "not.is.null".to_owned()); *times]);
            pairs.push((at("order"), ["e0(id)", "e0(name)", "id"].repeat((times % 4) + 1).join(",")));
        }
        pairs.push(("select".to_owned(), select));
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
        for sql in statement_of("staff", &pairs).unwrap_or_default() {
            prop_assert!(sql.text.len() <= MAX_STATEMENT);
            prop_assert!(subselects(&sql) <= 1 + MAX_SUBSELECTS);
            prop_assert!(skeleton(&sql.text).is_some());
        }
    }
}
