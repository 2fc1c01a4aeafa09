//! Input that is out to do harm, in every position.

use http::Method;
use serde_json::json;

use crate::cases::seeded;
use postern_served::Ask;

use crate::support::{Served, Workspace};

const SLY: [&str; 12] = [
    "';DROP TABLE customers;--",
    "\";DROP TABLE customers;--",
    "1) OR (1=1",
    "$1",
    "$$;",
    "\\'; SELECT 1--",
    "/*",
    "x' || pg_sleep(10) || '",
    "\u{202e}",
    "E'\\x27'",
    "\"\"",
    "::text",
];

/// Encodes all of a value, so that it arrives as it is.
fn encoded(text: &str) -> String {
    text.bytes().map(|b| format!("%{b:02X}")).collect()
}

async fn whole(served: &Served, workspace: &Workspace) {
    let count = "SELECT count(*)::text FROM $schema.customers";
    assert_eq!(served.text(workspace, count).await.as_deref(), Some("4"));
}

#[tokio::test]
async fn injection_in_every_position() {
    let served = Served::new().await;
    let workspace = seeded(&served).await;
    let positions = [
        "rows/customers?name=eq.{}",
        "rows/customers?name=in.({},%22{}%22)",
        "rows/customers?name=like.{}",
        "rows/customers?name=match.{}",
        "rows/customers?name=isdistinct.{}",
        "rows/customers?name=eq(any).%7B{}%7D",
        "rows/customers?tags=cs.{}",
        "rows/customers?meta=cs.{}",
        "rows/customers?id=eq.{}",
        "rows/customers?or=(name.eq.%22{}%22,id.eq.{})",
        "rows/customers?{}=eq.1",
        "rows/customers?%22{}%22=eq.1",
        "rows/customers?meta-%3E%3E%22{}%22=eq.1",
        "rows/customers?meta-%3E%22{}%22-%3E%3E{}=eq.1",
        "rows/customers?select={}",
        "rows/customers?select=%22{}%22:id",
        "rows/customers?select=id::{}",
        "rows/customers?select=orders!{}(id)",
        "rows/customers?select={}(id)",
        "rows/customers?select=meta-%3E%3E%22{}%22",
        "rows/customers?order={}",
        "rows/customers?order=meta-%3E%3E%22{}%22",
        "rows/customers?limit={}",
        "rows/customers?offset={}",
        "rows/customers?count={}",
        "rows/customers?cursor={}",
        "rows/products?name=fts({}).x",
        "rows/products?words=fts.{}",
        "rows/products?season=ov.{}",
        "rows/customers?select=id,orders(id)&orders.{}=eq.1",
        "rows/customers?select=id,orders(id)&{}.limit=1",
        "rows/{}",
        "rows/customers/{}",
        "rows/lines/{},1",
        "tables/{}",
    ];
    for position in positions {
        for sly in SLY {
            let path = position.replace("{}", &encoded(sly));
            let answer = served.get(&workspace, &path).await;
            assert!(
                matches!(answer.status.as_u16(), 200 | 400 | 404),
                "{position} {sly}: {answer:?}"
            );
            if position == "rows/customers?name=eq.{}" {
                assert_eq!(answer.ok()["data"], json!([]), "{sly}");
            }
        }
    }
    whole(&served, &workspace).await;
}

#[tokio::test]
async fn injection_in_bodies_and_writes() {
    let served = Served::new().await;
    let workspace = seeded(&served).await;
    for (n, sly) in SLY.iter().enumerate() {
        let row = json!({"id": 100 + n, "name": sly});
        let made = served
            .post(&workspace, "rows/labels?select=name", &row)
            .await
            .ok();
        assert_eq!(made["data"][0]["name"], **sly);
        let body = json!({ *sly: 1 });
        assert_eq!(
            served
                .post(&workspace, "rows/labels", &body)
                .await
                .refused()
                .0,
            400
        );
        assert_eq!(
            served.post(&workspace, "rpc/add", &body).await.refused().0,
            400
        );
        for path in [
            format!("rows/labels?columns={}", encoded(sly)),
            format!("rows/labels?onConflict={}", encoded(sly)),
            format!("rpc/{}", encoded(sly)),
        ] {
            let answer = served.post(&workspace, &path, &json!({})).await;
            assert!(
                matches!(answer.refused().0, 400 | 404),
                "{path}: {answer:?}"
            );
        }
        let path = format!("rows/customers?name=eq.{}", encoded(sly));
        let deleted = Ask::new(&workspace, Method::DELETE, &path)
            .send(&served)
            .await
            .ok();
        assert_eq!(deleted["deleted"], 0);
    }
    whole(&served, &workspace).await;
}

#[tokio::test]
async fn too_much_of_everything() {
    let served = Served::new().await;
    let workspace = seeded(&served).await;
    let nested = |n: usize| {
        format!(
            "rows/customers?or={}id.eq.1{}",
            "(or".repeat(n),
            ")".repeat(n)
        )
    };
    let long = |n: usize| format!("rows/customers?id=in.({})", vec!["1"; n].join(","));
    for path in [
        nested(11),
        nested(5_000),
        format!("rows/customers?or=({})", "and(or(".repeat(2_500)),
        format!("rows/customers?select={}", "a(".repeat(5_000)),
        format!("rows/customers?select=meta{}", "->a".repeat(5_000)),
        long(30_000),
        format!(
            "rows/customers?id=eq(any).{{{}}}",
            vec!["1"; 30_000].join(",")
        ),
        format!("rows/customers?{}", vec!["id=eq.1"; 600].join("&")),
        format!("rows/{}", "t".repeat(64)),
        format!("rows/customers?{}=eq.1", "c".repeat(64)),
        "rows/customers?name=eq.%00".to_owned(),
        "rows/customers?name=eq.%ED%A0%80".to_owned(),
    ] {
        let shown: String = path.chars().take(60).collect();
        let answer = served.get(&workspace, &path).await;
        assert!(
            matches!(answer.status.as_u16(), 400 | 404 | 414 | 431),
            "{shown}: {} {:?}",
            answer.status,
            answer.body
        );
    }
    served.get(&workspace, &long(10_000)).await.ok();
    for depth in [200, 20_000] {
        let body = format!(
            "{{\"id\":9,\"jb\":{}{}}}",
            "[".repeat(depth),
            "]".repeat(depth)
        );
        let ask = Ask::new(&workspace, Method::POST, "rows/things").body("application/json", body);
        assert_eq!(ask.send(&served).await.refused().0, 400, "{depth}");
    }
    for raw in [
        "{\"id\":9,\"name\":\"\\ud800\"}",
        "{\"id\":9,\"name\":\"\\u0000\"}",
        "{\"id\":9e999999}",
    ] {
        let ask = Ask::new(&workspace, Method::POST, "rows/labels").body("application/json", raw);
        assert_eq!(ask.send(&served).await.refused().0, 400, "{raw}");
    }
    whole(&served, &workspace).await;
}

/// An answer beyond its bound is refused while it comes.
#[tokio::test]
async fn answers_are_bounded() {
    let small = postern_postgres::Bounds {
        max_answer: 64 << 10,
        ..crate::support::bounds()
    };
    let served = Served::with(small, None, true).await;
    let workspace = seeded(&served).await;
    served
        .seed(&workspace, "INSERT INTO labels (id, name) SELECT n, repeat('x', 1000) FROM generate_series(100, 300) n")
        .await;
    let answer = served.get(&workspace, "rows/labels?limit=1000").await;
    assert_eq!(answer.refused(), (400, "VALIDATION_ERROR".into()));
    served.get(&workspace, "rows/labels?limit=10").await.ok();
    // A change whose rows would be too large did not happen.
    let ask = Ask::new(&workspace, Method::DELETE, "rows/labels?id=gte.100")
        .header("prefer", "return=representation");
    assert_eq!(ask.send(&served).await.refused().0, 400);
    let left = "SELECT count(*)::text FROM $schema.labels WHERE id >= 100";
    assert_eq!(served.text(&workspace, left).await.as_deref(), Some("201"));
}

/// One row above the bound does not leave PostgreSQL, whatever it is made of.
#[tokio::test]
async fn a_row_is_bounded() {
    let small = postern_postgres::Bounds {
        max_answer: 64 << 10,
        ..crate::support::bounds()
    };
    let served = Served::with(small, None, true).await;
    let workspace = seeded(&served).await;
    served
        .seed(
            &workspace,
            "INSERT INTO labels (id, name) VALUES (100, repeat('x', 100000)), (101, repeat('x', 10000)); \
             UPDATE orders SET state = repeat('x', 40000)",
        )
        .await;
    let aliases = |n: usize| {
        let all: Vec<_> = (0..n).map(|n| format!("a{n}:name")).collect();
        all.join(",")
    };
    for path in [
        "rows/labels/100".to_owned(),
        "rows/labels?id=eq.100".to_owned(),
        format!("rows/labels?id=eq.101&select={}", aliases(8)),
        format!("rows/labels?id=eq.101&select={}", aliases(9)),
        "rows/customers?id=eq.1&select=id,orders(state)".to_owned(),
        "rows/customers?id=eq.1&select=id,orders(lines(orders(state)))".to_owned(),
    ] {
        let answer = served.get(&workspace, &path).await;
        assert_eq!(answer.refused(), (400, "VALIDATION_ERROR".into()), "{path}");
    }
    for path in [
        "rows/labels/101".to_owned(),
        format!("rows/labels?id=eq.101&select={}", aliases(6)),
        "rows/customers?id=eq.2&select=id,orders(state)".to_owned(),
    ] {
        served.get(&workspace, &path).await.ok();
    }
}
