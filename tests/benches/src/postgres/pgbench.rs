//! pgbench, running what the handlers run.
//!
//! The statements are not written down here: PostgreSQL is asked to log them while the
//! handlers answer one request, so they are the same by construction, bound values and all.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use postern_harness::wait_for;
use tokio_postgres::Client;

use crate::data::Rate;

/// A statement and the values of its parameters.
#[derive(Clone, Debug)]
struct Statement {
    text: String,
    values: Vec<String>,
}

/// Everything that PostgreSQL was sent for one request, in order.
#[derive(Clone, Debug)]
pub(crate) struct Flight(Vec<Statement>);

/// As whom and where pgbench connects.
pub(crate) struct Login {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// How pgbench sends a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// All of it before the first answer, as the handlers do.
    Pipelined,
    /// Each statement after the answer to the one before it.
    InTurns,
    /// The statement alone, as the workspace's role, with no transaction around it.
    Bare,
}

const LOGGED: Duration = Duration::from_secs(10);

impl Flight {
    /// What PostgreSQL, whose log this is, is sent while `ask` runs.
    pub(crate) async fn of(
        sql: &Client,
        log: &Path,
        mut ask: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        set(sql, "ALTER SYSTEM SET log_statement = 'all'").await?;
        let learned = wait_for("the statements in PostgreSQL's log", LOGGED, async || {
            let before = std::fs::metadata(log)?.len();
            ask()?;
            let text = std::fs::read(log)?;
            let new = text.get(usize::try_from(before)?..).unwrap_or_default();
            Self::read(&String::from_utf8_lossy(new))
        })
        .await;
        set(sql, "ALTER SYSTEM RESET log_statement").await?;
        wait_for("PostgreSQL to log no more", LOGGED, async || {
            let before = std::fs::metadata(log)?.len();
            ask()?;
            ensure!(std::fs::metadata(log)?.len() == before, "it still does");
            Ok(())
        })
        .await?;
        learned
    }

    /// `… [pid] LOG:  execute <unnamed>: SELECT …`, then
    /// `… [pid] DETAIL:  parameters: $1 = '…', …`
    fn read(log: &str) -> Result<Self> {
        let mut flights: Vec<(&str, Vec<Statement>)> = Vec::new();
        for line in log.lines() {
            let Some((pid, said)) = line
                .split_once('[')
                .and_then(|(_, rest)| rest.split_once("] "))
            else {
                continue;
            };
            let place = flights.iter().position(|(of, _)| *of == pid);
            let statement = said
                .strip_prefix("LOG:  statement: ")
                .or_else(|| said.strip_prefix("LOG:  execute <unnamed>: "));
            if let Some(text) = statement {
                let statement = Statement {
                    text: text.to_owned(),
                    values: Vec::new(),
                };
                match place.and_then(|place| flights.get_mut(place)) {
                    Some((_, flight)) => flight.push(statement),
                    None => flights.push((pid, vec![statement])),
                }
            } else if let Some(values) = said.strip_prefix("DETAIL:  parameters: ")
                && let Some((_, flight)) = place.and_then(|place| flights.get_mut(place))
                && let Some(last) = flight.last_mut()
            {
                last.values = quoted(values)?;
            }
        }
        // Others talk to the same server: what reads rows is ours.
        let ours = |flight: &Vec<Statement>| {
            flight.iter().any(|one| one.text.contains("row_to_json"))
                && flight.last().is_some_and(|last| last.text == "COMMIT")
        };
        let flight = flights.into_iter().map(|(_, flight)| flight).find(ours);
        Ok(Self(flight.context("no flight in the log yet")?))
    }

    /// The statement that reads the rows.
    fn main(&self) -> Result<&Statement> {
        let reads = |one: &&Statement| one.text.contains("row_to_json");
        self.0.iter().find(reads).context("nothing reads rows")
    }

    /// As a script of pgbench, and the variables it takes. `varied` is the value in whose
    /// place `id` stands.
    fn script(&self, way: Way, varied: Option<(&str, u32)>) -> Result<(String, Vec<String>)> {
        let mut script = String::new();
        if let Some((_, most)) = varied {
            writeln!(script, "\\set id random(1, {most})")?;
        }
        let statements = match way {
            Way::Bare => std::slice::from_ref(self.main()?),
            _ => &self.0,
        };
        if way == Way::Pipelined {
            script.push_str("\\startpipeline\n");
        }
        let mut variables = Vec::new();
        for (place, statement) in statements.iter().enumerate() {
            let mut text = statement.text.clone();
            // From the last, so that $1 is not found in $10.
            for (index, value) in statement.values.iter().enumerate().rev() {
                let name = match varied {
                    Some((sample, _)) if sample == value => "id".to_owned(),
                    _ => {
                        let name = format!("s{place}p{index}");
                        variables.push(format!("{name}={value}"));
                        name
                    }
                };
                text = text.replace(&format!("${}", index + 1), &format!(":{name}"));
            }
            writeln!(script, "{text};")?;
        }
        if way == Way::Pipelined {
            script.push_str("\\endpipeline\n");
        }
        Ok((script, variables))
    }

    /// Settings that a session of the bare statement needs, as PostgreSQL's options.
    fn options(&self) -> Result<String> {
        let settings = self
            .0
            .iter()
            .find(|one| one.text.contains("set_config('role'"))
            .context("nothing sets the role")?;
        let mut options = String::new();
        for (place, value) in settings.values.iter().enumerate() {
            let end = format!("', ${}, true)", place + 1);
            let before = settings.text.split(&end).next().unwrap_or_default();
            let name = before.rsplit('\'').next().unwrap_or_default();
            let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
            write!(options, " -c {name}={value}")?;
        }
        Ok(options)
    }

    /// How many a second.
    pub(crate) fn run(
        &self,
        login: &Login,
        folder: &Path,
        way: Way,
        varied: Option<(&str, u32)>,
        (conns, length): (usize, Duration),
    ) -> Result<Rate> {
        let (script, variables) = self.script(way, varied)?;
        let file = folder.join("pgbench.sql");
        std::fs::write(&file, script)?;
        let mut command = Command::new(program()?);
        command
            .args(["--no-vacuum", "--protocol=extended", "--jobs=1"])
            .args(["--client", &conns.to_string()])
            // It counts the time in which it connects, but not in its rate.
            .args(["--time", &(length.as_secs() + 1).to_string()])
            .arg("--file")
            .arg(&file)
            .env("PGHOST", login.address.ip().to_string())
            .env("PGPORT", login.address.port().to_string())
            .env("PGUSER", &login.user)
            .env("PGPASSWORD", &login.password)
            .env("PGDATABASE", "postgres")
            .env("PGSSLMODE", "disable")
            .stdin(Stdio::null());
        for variable in variables {
            command.args(["--define", &variable]);
        }
        if way == Way::Bare {
            command.env("PGOPTIONS", self.options()?);
        }
        let output = command.output().context("pgbench cannot be run")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        // Clients that failed are told, and the others counted all the same.
        ensure!(
            output.status.success() && !said.contains("error:"),
            "pgbench failed ({}): {said}",
            output.status
        );
        let rate = text
            .lines()
            .find_map(|line| line.strip_prefix("tps = "))
            .and_then(|rest| rest.split(' ').next())
            .with_context(|| format!("pgbench told no rate: {text}{said}"))?;
        Ok(Rate::of(rate.parse()?))
    }
}

async fn set(sql: &Client, statement: &str) -> Result<()> {
    sql.batch_execute(statement).await?;
    sql.batch_execute("SELECT pg_reload_conf()").await?;
    Ok(())
}

/// `$1 = 'a', $2 = 'it''s'`
fn quoted(mut text: &str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    while let Some((_, rest)) = text.split_once(" = '") {
        let mut value = String::new();
        let mut left = rest;
        loop {
            let Some((piece, after)) = left.split_once('\'') else {
                bail!("a value without an end: {text}");
            };
            value.push_str(piece);
            match after.strip_prefix('\'') {
                Some(after) => {
                    value.push('\'');
                    left = after;
                }
                None => {
                    left = after;
                    break;
                }
            }
        }
        values.push(value);
        text = left;
    }
    Ok(values)
}

/// On the path, or where Debian keeps each version's own: what stands on its path there is
/// a script that looks for the program each time.
fn program() -> Result<PathBuf> {
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    debian.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    debian
        .into_iter()
        .rev()
        .map(|version| version.join("bin"))
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join("pgbench"))
        .find(|program| program.is_file())
        .context("pgbench is neither on the PATH nor under /usr/lib/postgresql")
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01 00:00:00.000 UTC [1] LOG:  statement: BEGIN READ ONLY
2026-01-01 00:00:00.000 UTC [2] LOG:  statement: SELECT 1
2026-01-01 00:00:00.000 UTC [1] LOG:  execute <unnamed>: SELECT set_config('a.b', $1, true), set_config('role', $2, true)
2026-01-01 00:00:00.000 UTC [1] DETAIL:  parameters: $1 = 'it''s', $2 = '\"x\", public'
2026-01-01 00:00:00.000 UTC [1] LOG:  execute <unnamed>: SELECT row_to_json(r.*)::text WHERE id = $1::int8
2026-01-01 00:00:00.000 UTC [1] DETAIL:  parameters: $1 = '77'
2026-01-01 00:00:00.000 UTC [1] LOG:  statement: COMMIT
";

    #[test]
    fn a_flight_becomes_a_script() {
        let flight = Flight::read(LOG).unwrap();
        let (script, variables) = flight.script(Way::Pipelined, Some(("77", 9))).unwrap();
        assert_eq!(
            script,
            "\\set id random(1, 9)\n\\startpipeline\nBEGIN READ ONLY;\n\
             SELECT set_config('a.b', :s1p0, true), set_config('role', :s1p1, true);\n\
             SELECT row_to_json(r.*)::text WHERE id = :id::int8;\nCOMMIT;\n\\endpipeline\n"
        );
        assert_eq!(variables, ["s1p1=\"x\", public", "s1p0=it's"]);
        let (bare, _) = flight.script(Way::Bare, None).unwrap();
        assert_eq!(
            bare,
            "SELECT row_to_json(r.*)::text WHERE id = :s0p0::int8;\n"
        );
        let options = flight.options().unwrap();
        assert_eq!(options, " -c a.b=it's -c role=\"x\",\\ public");
    }
}
