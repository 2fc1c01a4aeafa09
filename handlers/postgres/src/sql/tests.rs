//! No input makes a statement whose structure is another than its plan's.

use std::sync::Arc;

use proptest::prelude::*;

use super::{Sql, count, list};
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
    let tables = vec![
        table("orders", vec![reference]),
        table("customers", Vec::new()),
    ];
    Catalog::new("ws_1".into(), "v".into(), None, tables, Vec::new())
}

/// The statement for these parameters; none: they are refused.
fn statement(pairs: &[(&str, String)]) -> Option<Vec<Sql>> {
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
    let table: &Arc<Table> = planner.table("orders").ok()?;
    let mut rows = planner.rows(table, &ask).ok()?;
    let counted = count(&rows, None);
    planner.page(&mut rows, 20, 0);
    Some(vec![list(&rows, false), counted])
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
