//! The lint suite: an ordered list of checks, each of which passes or says
//! everything that is wrong.

mod budgets;
mod documents;
mod graph;
mod licence;
mod policy;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// What a check found wrong, one finding a line.
type Findings = Vec<String>;
type Check = fn(&Path) -> Result<Findings>;

/// Cheap ones first: a slip in a link is told before clippy has compiled.
const CHECKS: [(&str, Check); 10] = [
    ("formatting", formatting),
    ("lock-file", graph::lock_file),
    ("directions", graph::directions),
    ("licences", graph::licences),
    ("bans", graph::bans),
    ("links", documents::links),
    ("budgets", budgets::bounds),
    ("generated", generated),
    ("clippy", clippy),
    ("rustdoc", rustdoc),
];

/// Runs the checks, or those named, and prints the line that test runners close with.
pub(crate) fn run(root: &Path, names: &[String], list: bool) -> Result<ExitCode> {
    if let Some(unknown) = names
        .iter()
        .find(|name| !CHECKS.iter().any(|(known, _)| known == name))
    {
        bail!("no check {unknown:?}; `lint --list` names them");
    }
    let wanted = CHECKS
        .iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name));
    let (mut passed, mut failed) = (0_u32, 0_u32);
    for (name, check) in wanted {
        if list {
            println!("{name}");
            continue;
        }
        let start = Instant::now();
        let findings = check(root).unwrap_or_else(|error| vec![format!("{error:#}")]);
        let seconds = start.elapsed().as_secs_f32();
        if findings.is_empty() {
            passed += 1;
            println!("lint {name} ... ok ({seconds:.1} s)");
        } else {
            failed += 1;
            println!("lint {name} ... FAILED ({seconds:.1} s)");
            for finding in findings {
                println!("    {}", finding.trim_end().replace('\n', "\n    "));
            }
        }
    }
    if list {
        return Ok(ExitCode::SUCCESS);
    }
    println!("note: lists of security advisories are not read here: no check needs the network");
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {passed} passed; {failed} failed");
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn formatting(root: &Path) -> Result<Findings> {
    cargo(root, &["fmt", "--all", "--", "--check", "-l"], &[])
}

fn clippy(root: &Path) -> Result<Findings> {
    let arguments = [
        "clippy",
        "--quiet",
        "--keep-going",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ];
    cargo(root, &arguments, &[])
}

/// Private items too, and links to them: module docs tell newcomers the journey.
fn rustdoc(root: &Path) -> Result<Findings> {
    let arguments = [
        "doc",
        "--quiet",
        "--keep-going",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
    ];
    cargo(
        root,
        &arguments,
        &[(
            "RUSTDOCFLAGS",
            "-D warnings -A rustdoc::private_intra_doc_links",
        )],
    )
}

/// Each generator knows how to tell that its output is not what is committed.
fn generated(root: &Path) -> Result<Findings> {
    let mut wire = Command::new(root.join("proto/wire/generate"));
    let mut gateway = Command::new(std::env::current_exe()?);
    let mut findings = output_of(root, wire.arg("--check"))?;
    findings.extend(output_of(root, gateway.args(["generate", "--check"]))?);
    Ok(findings)
}

fn cargo(root: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Findings> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied());
    output_of(root, &mut command)
}

/// Nothing when the command succeeds, else what it printed.
fn output_of(root: &Path, command: &mut Command) -> Result<Findings> {
    let output = command
        .current_dir(root)
        .output()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if output.status.success() {
        return Ok(Vec::new());
    }
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    Ok(vec![format!(
        "{} failed ({}):\n{}",
        command.get_program().display(),
        output.status,
        printed.trim()
    )])
}
