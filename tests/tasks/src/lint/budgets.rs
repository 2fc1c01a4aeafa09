//! The bounds that `docs/budgets.md` tells are those that are set.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Findings;

const PAGE: &str = "docs/budgets.md";

/// Every row's last cell names a file and a text in it, and the number in that text is the
/// bound that the row tells.
pub(super) fn bounds(root: &Path) -> Result<Findings> {
    let page = std::fs::read_to_string(root.join(PAGE)).with_context(|| PAGE)?;
    let mut findings = Findings::new();
    let mut rows = 0;
    for (number, line) in page.lines().enumerate() {
        if !line.starts_with("| ") || line.contains("taken from") {
            continue;
        }
        rows += 1;
        let read = |file: &str| std::fs::read_to_string(root.join(file)).ok();
        if let Some(wrong) = wrong(line, read) {
            findings.push(format!("{PAGE}:{}: {wrong}", number + 1));
        }
    }
    if rows == 0 {
        findings.push(format!("{PAGE}: no row was found"));
    }
    Ok(findings)
}

/// What is wrong with a row, if anything.
fn wrong(row: &str, read: impl Fn(&str) -> Option<String>) -> Option<String> {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let (Some(bound), Some(source)) = (cells.get(1), cells.last()) else {
        return Some("a row has four cells".to_owned());
    };
    let mut code = source.split('`').skip(1).step_by(2);
    let (Some(file), Some(text)) = (code.next(), code.next()) else {
        return Some(format!("{source} names no file and no text in it"));
    };
    let Some(content) = read(file) else {
        return Some(format!("{file} cannot be read"));
    };
    // `timeoutMs: 5` does not stand in `timeoutMs: 5000`.
    let ends = |rest: &str| !rest.starts_with(|next: char| next.is_ascii_alphanumeric());
    let stands = content
        .match_indices(text)
        .any(|(at, found)| content.get(at + found.len()..).is_some_and(ends));
    if !stands {
        return Some(format!("{file} does not say {text:?}"));
    }
    let set = first_number(text);
    let told = first_number(bound);
    // Files tell times in s or ms, and the page in whichever reads better.
    let factors: &[u64] = match bound.rsplit(' ').next() {
        Some("s") => &[1, 1_000],
        _ => &[1],
    };
    let same = factors.iter().any(|factor| told.map(|n| n * factor) == set);
    (!same).then(|| format!("it tells {bound}, and {file} says {text:?}"))
}

/// The first number that is no part of a name: `f64 = 60.0` says 60, `10_000` what it says.
fn first_number(text: &str) -> Option<u64> {
    text.replace('_', "")
        .split(|c: char| !c.is_ascii_alphanumeric())
        .find_map(|word| {
            let digits = word.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            digits.parse().ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(row: &str) -> Option<String> {
        let files = |file: &str| {
            (file == "a.yaml").then(|| {
                "chainMs: 10000\ntimeoutMs: 5000\nWAIT: f64 = 60.0\nMAX_LIST: usize = 10_000;\n"
                    .into()
            })
        };
        wrong(row, files)
    }

    #[test]
    fn what_is_told_is_what_is_set() {
        for good in [
            "| a chain | 10 s | 504 | `a.yaml`: `chainMs: 10000` |",
            "| a chain | 10000 ms | 504 | `a.yaml`: `chainMs: 10000` |",
            "| a wait | 60 s | 503 | `a.yaml`: `WAIT: f64 = 60.0` |",
            "| a list | 10000 | 400 | `a.yaml`: `MAX_LIST: usize = 10_000` |",
        ] {
            assert_eq!(judged(good), None, "{good}");
        }
        for bad in [
            "| a chain | 11 s | 504 | `a.yaml`: `chainMs: 10000` |",
            "| a store | 5 ms | 503 | `a.yaml`: `timeoutMs: 5` |",
            "| a store | 5 s | 503 | `b.yaml`: `timeoutMs: 5000` |",
            "| a store | 5 s | 503 | somewhere |",
            "| a store |",
        ] {
            assert!(judged(bad).is_some(), "{bad}");
        }
    }
}
