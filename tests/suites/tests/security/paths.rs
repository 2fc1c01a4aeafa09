//! Paths that gateway, runner and handler might read in two ways: judged by the one
//! reading, and then not carried out by the other.

use anyhow::Result;
use postern_contract::routes::Segment;
use postern_contract::{Code, Route, routes};

use crate::rules::{Asked, Bearer, Verdict, verdict};
use crate::walk::{Cell, walk};
use crate::world::world;

/// Another spelling of a path that the gateway reads as the same; `None` where the path
/// is too short for it.
type Spelling = (&'static str, fn(&Route, &str) -> Option<String>);

const SPELLINGS: [Spelling; 8] = [
    ("a slash twice at the start", |_, path| {
        Some(format!("/{path}"))
    }),
    ("a slash twice", |_, path| inserted(path, "/")),
    ("..%2f", |_, path| {
        Some(format!("/nowhere/..%2f{}", path.trim_start_matches('/')))
    }),
    ("..%2F further down", |_, path| {
        inserted(path, "nowhere/..%2F")
    }),
    ("%2e%2e/", |_, path| inserted(path, "nowhere/%2e%2e/")),
    ("../", |_, path| inserted(path, "nowhere/../")),
    ("./", |_, path| inserted(path, "./")),
    ("an encoded slash", encoded),
];

/// With this before the last segment but after the first slash.
fn inserted(path: &str, what: &str) -> Option<String> {
    let (before, after) = path.rsplit_once('/')?;
    Some(format!("{before}/{what}{after}"))
}

/// With `%2f` for the slash before the template's last segment.
fn encoded(route: &Route, path: &str) -> Option<String> {
    let slash = route
        .segments
        .len()
        .checked_sub(1)
        .filter(|last| *last > 0)?;
    let (at, _) = path.match_indices('/').nth(slash)?;
    Some(format!("{}%2f{}", path.get(..at)?, path.get(at + 1..)?))
}

#[tokio::test]
async fn read_in_two_ways() -> Result<()> {
    let world = world().await;
    let mut cells = Vec::new();
    for route in routes().all() {
        let asked = Asked::rightly(route);
        let plain = world.path(route, &asked);
        for (how, spell) in SPELLINGS {
            let Some(path) = spell(route, &plain) else {
                continue;
            };
            cells.push(
                Cell::new(world, route, how, asked)
                    .at(path.clone())
                    .refused(Code::PathAmbiguous),
            );
            // Whoever may not is told that, and nothing of paths.
            let nobody = Asked {
                bearer: Bearer::Nothing,
                ..asked
            };
            if let Verdict::Refused(Code::TokenMissing) = verdict(route, &nobody, &world.on) {
                let case = format!("{how}, without a token");
                cells.push(Cell::new(world, route, &case, nobody).at(path.clone()));
                let case = format!("{how}, without the scope");
                let denied = Asked {
                    scope: false,
                    ..asked
                };
                cells.push(Cell::new(world, route, &case, denied).at(path));
            }
        }
    }
    walk(world, cells).await
}

#[tokio::test]
async fn no_route_of_ours() -> Result<()> {
    let world = world().await;
    let mut cells = Vec::new();
    for route in routes().all() {
        let asked = Asked::rightly(route);
        let plain = world.path(route, &asked);
        let mut other = vec![
            ("a slash at the end", format!("{plain}/")),
            (
                "capitals",
                plain
                    .replacen("/v1/", "/V1/", 1)
                    .replace("/health", "/HEALTH"),
            ),
        ];
        let has_parameter = route
            .segments
            .iter()
            .any(|segment| !matches!(segment, Segment::Literal(_)));
        if !has_parameter {
            other.push(("a segment more", format!("{plain}/one/two/three/four/five")));
        }
        for (how, path) in other {
            for bearer in [Bearer::Good, Bearer::Nothing] {
                let case = format!("{how}, {bearer:?}");
                let cell = Cell::new(world, route, &case, Asked { bearer, ..asked });
                cells.push(cell.at(path.clone()).refused(Code::RouteNotFound));
            }
        }
    }
    walk(world, cells).await
}
