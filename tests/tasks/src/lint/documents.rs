//! Links in the documents lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Findings;

/// Every relative link of every Markdown file names a file that is there, and
/// an anchor in a Markdown file names one of its headings. Links to other sites
/// are left alone: no check needs the network.
pub(super) fn links(root: &Path) -> Result<Findings> {
    let files = markdown_files(root)?;
    let mut texts = BTreeMap::new();
    for file in files {
        let text = std::fs::read_to_string(&file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        texts.insert(file, text);
    }
    let mut findings = Findings::new();
    for (file, text) in &texts {
        let shown = file.strip_prefix(root).unwrap_or(file).display();
        for (line, target) in targets(text) {
            if let Some(why) = broken(file, &target, &texts) {
                findings.push(format!("{shown}:{line}: {target}: {why}"));
            }
        }
    }
    Ok(findings)
}

fn markdown_files(root: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("git")
        .args(["ls-files", "-co", "--exclude-standard", "--", "*.md"])
        .current_dir(root)
        .output()
        .context("cannot run git")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(|line| root.join(line))
        .filter(|path| path.is_file())
        .collect())
}

/// Why a link leads nowhere, if it does.
fn broken(file: &Path, target: &str, texts: &BTreeMap<PathBuf, String>) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = match target.split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (target, None),
    };
    let linked = if path.is_empty() {
        file.to_owned()
    } else {
        normal(&file.parent()?.join(path))
    };
    if !linked.exists() {
        return Some("no such file".to_owned());
    }
    let anchor = anchor?;
    let text = texts.get(&linked)?;
    (!anchors(text).contains(anchor)).then(|| "no such heading".to_owned())
}

/// The path without `.` and `..`, so that it can be looked up.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                normal.pop();
            }
            std::path::Component::CurDir => {}
            other => normal.push(other),
        }
    }
    normal
}

/// Lines outside code blocks, numbered from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fence && !fenced).then_some((index + 1, line))
    })
}

/// Link targets: `[text](target)` and `[name]: target`, outside of code.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        // Every second piece between back-ticks is code.
        let line: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        let definition = line
            .strip_prefix('[')
            .and_then(|rest| rest.split_once("]: "))
            .map(|(_, target)| target);
        let inline = line
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in inline.chain(definition) {
            // What follows a blank is the link's title.
            if let Some(target) = target.split_whitespace().next() {
                found.push((number, target.trim_matches(['<', '>']).to_owned()));
            }
        }
    }
    found
}

/// The anchors that GitHub makes of a text's headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    prose(text)
        .filter_map(|(_, line)| {
            let title = line.trim_start_matches('#');
            (title.len() < line.len() && title.starts_with(' ')).then(|| title.trim())
        })
        .map(|title| {
            let slug: String = title
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let count = seen.entry(slug.clone()).or_default();
            *count += 1;
            match *count {
                1 => slug,
                more => format!("{slug}-{}", more - 1),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_and_code_is_left_alone() {
        let text = "[a](x.md) `[b](no)` [c](<y.md#z> \"title\")\n```\n[d](no)\n```\n[e]: z.md\n";
        let found: Vec<_> = targets(text);
        let expected = [(1, "x.md"), (1, "y.md#z"), (5, "z.md")];
        assert_eq!(
            found,
            expected.map(|(line, target)| (line, target.to_owned()))
        );
    }

    #[test]
    fn anchors_are_those_of_github() {
        let text = "# A `b`: c-d\n## Same\n## Same\n```\n# code\n```\n#no\n";
        assert_eq!(
            anchors(text),
            ["a-b-c-d", "same", "same-1"].map(str::to_owned).into()
        );
    }

    #[test]
    fn a_link_that_leads_nowhere_is_told() {
        let file = PathBuf::from("/nowhere/docs/a.md");
        let texts = BTreeMap::from([(file.clone(), "# Here\n".to_owned())]);
        assert!(broken(&file, "gone.md", &texts).is_some());
        assert!(broken(&file, "https://example.com/x", &texts).is_none());
    }
}
