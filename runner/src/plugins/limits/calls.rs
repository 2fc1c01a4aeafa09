//! Calls a month: counted here, added up in the control plane's database.
//!
//! ```text
//! request → used + not yet reported < limit? → passes the other limits → counted
//!                    ▲                                                     │ each second,
//!                    └── used and limit of the plan ◄── ReportCalls ◄──────┘ or at once: a new tenant
//! ```
//!
//! A tenant's own issuer may claim to speak for another tenant: calls by its word are a
//! count of their own, which the directory adds up and answers for that tenant only.
//!
//! No request waits for it. A report that is repeated counts once, so calls are lost with
//! a process that is killed only, and those of its last second. What other runners
//! have let pass is known a report later: so beyond the limit pass, at most, the calls
//! of about a second, on each runner; those of a tenant that this process has not seen
//! before until its first report is answered; and, while the directory is away, whatever
//! the other runners let pass meanwhile.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ahash::RandomState;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use postern_contract::{Code, TenantId};
use postern_directory::directory_client::DirectoryClient;
use postern_directory::{Calls as Row, ReportCallsRequest, ReportCallsResponse};
use rand::RngExt as _;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{microseconds, seconds_up};
use crate::plugins::authorize::is_final;
use crate::{Identity, Reply};

/// Between two reports.
const REPORT: Duration = Duration::from_secs(1);
/// How long a report may take to be answered.
const ANSWER: Duration = Duration::from_secs(1);
/// Before a report is repeated.
const RETRY: Duration = Duration::from_millis(200);
/// Tenants that appear together are asked for together.
const GATHER: Duration = Duration::from_millis(10);
/// Tenants in one report.
const BATCH: usize = 1_000;
/// Tenants that are counted at once; the calls of further ones are not.
const MOST: usize = 100_000;
/// A tenant that has not called for so long is forgotten, in microseconds.
const IDLE: u64 = 60_000_000;

/// The calls of all tenants.
#[derive(Default)]
pub(crate) struct Calls {
    table: Mutex<Table>,
    /// A tenant has appeared.
    appeared: Notify,
}

#[derive(Default)]
struct Table {
    month: Month,
    tenants: HashMap<Box<str>, Count, RandomState>,
    /// Of months before, not yet reported.
    before: Vec<Row>,
}

/// The first and the last microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Month {
    begins: u64,
    ends: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    /// Let pass since the last report.
    passed: u64,
    /// In a report that is not answered yet.
    reported: u64,
    /// What the directory has said last.
    used: u64,
    limit: Option<u64>,
    /// Refused since: the plan may have changed.
    refused: bool,
    called_at: u64,
}

/// The calls of a tenant's month are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exceeded {
    limit: u64,
    resets: u64,
}

impl Exceeded {
    /// What the client gets.
    pub(crate) fn reply(self, now: u64) -> Reply {
        let resets = i64::try_from(self.resets).ok();
        let resets = resets.and_then(|resets| Timestamp::from_microsecond(resets).ok());
        let date = resets.map(|resets| resets.to_string()).unwrap_or_default();
        let message = format!(
            "the plan's {} calls of this month are used up; they reset on {date}",
            self.limit
        );
        let wait = seconds_up(self.resets.saturating_sub(now));
        Reply::refuse(Code::CallsExceeded, message).with_header("Retry-After", wait.to_string())
    }
}

/// Whose calls somebody's are: a tenant's, by the word of its own issuer or a common one.
pub(crate) fn whose(who: &Identity) -> Option<Cow<'_, str>> {
    // Anything may stand in a claim. What is no id is refused later; to be counted it would
    // only make reports long.
    let tenant = who.tenant.as_deref();
    let tenant = tenant.filter(|tenant| tenant.len() == TenantId::LEN)?;
    Some(by_word_of(
        tenant,
        who.tenant_slug.as_deref().unwrap_or_default(),
    ))
}

/// A claim has no control characters.
const BY: char = '\n';

fn by_word_of<'t>(tenant: &'t str, slug: &str) -> Cow<'t, str> {
    match slug {
        "" => Cow::Borrowed(tenant),
        slug => Cow::Owned(format!("{tenant}{BY}{slug}")),
    }
}

impl Calls {
    /// Whether there are calls left. Counts nothing.
    pub(crate) fn left(&self, whose: &str, now: u64) -> Result<(), Exceeded> {
        let mut table = self.table(now);
        let resets = table.month.ends;
        let Some(count) = table.tenants.get_mut(whose) else {
            return Ok(());
        };
        match count.limit {
            Some(limit) if count.total() >= limit => {
                count.refused = true;
                Err(Exceeded { limit, resets })
            }
            _ => Ok(()),
        }
    }

    /// A call has passed.
    pub(crate) fn count(&self, whose: &str, now: u64) {
        let mut table = self.table(now);
        let known = table.tenants.len();
        let count = match table.tenants.get_mut(whose) {
            Some(count) => count,
            None if known < MOST => {
                self.appeared.notify_one();
                table.tenants.entry(whose.into()).or_default()
            }
            None => {
                metrics::counter!("postern_calls_uncounted_total").increment(1);
                return;
            }
        };
        count.passed += 1;
        count.called_at = now;
    }

    /// What is to be reported, at most [`BATCH`] tenants; empty: nothing.
    fn batch(&self, now: u64) -> Vec<Row> {
        let mut table = self.table(now);
        let Table {
            month,
            tenants,
            before,
        } = &mut *table;
        let mut batch = before.split_off(before.len().saturating_sub(BATCH));
        tenants.retain(|_, count| {
            count.passed + count.reported > 0 || count.called_at.saturating_add(IDLE) > now
        });
        for (whose, count) in tenants.iter_mut() {
            if batch.len() >= BATCH {
                break;
            }
            if count.passed > 0 || count.refused {
                count.refused = false;
                count.reported = std::mem::take(&mut count.passed);
                batch.push(month.row(whose, count.reported));
            }
        }
        batch
    }

    /// A report was answered.
    fn told(&self, batch: &[Row], answer: ReportCallsResponse, now: u64) {
        let mut table = self.table(now);
        let Table { month, tenants, .. } = &mut *table;
        let begins = month.begins / 1_000_000;
        for row in batch.iter().filter(|row| row.at == begins) {
            let whose = by_word_of(&row.tenant_id, &row.tenant_slug);
            if let Some(count) = tenants.get_mut(&*whose) {
                count.reported = 0;
            }
        }
        for used in answer.used.iter().filter(|used| used.at == begins) {
            let whose = by_word_of(&used.tenant_id, &used.tenant_slug);
            if let Some(count) = tenants.get_mut(&*whose) {
                (count.used, count.limit) = (used.used, used.limit);
            }
        }
    }

    /// Reports until the process ends, and then what is left.
    pub(crate) async fn report(
        self: Arc<Self>,
        client: impl Fn() -> DirectoryClient<Channel> + Send,
        stop: CancellationToken,
    ) {
        let reporter: [u8; 16] = rand::rng().random();
        let mut sequence = 0;
        while !stop.is_cancelled() {
            tokio::select! {
                () = sleep(REPORT) => {}
                () = self.appeared.notified() => sleep(GATHER).await,
                () = stop.cancelled() => {}
            }
            loop {
                let calls = self.batch(microseconds(SystemTime::now()));
                if calls.is_empty() {
                    break;
                }
                sequence += 1;
                let report = ReportCallsRequest {
                    reporter: reporter.into(),
                    sequence,
                    calls,
                };
                self.send(report, &client).await;
            }
        }
    }

    /// Sends a report until it is answered. A process that ends has a bound of its own.
    async fn send(
        &self,
        report: ReportCallsRequest,
        client: &(impl Fn() -> DirectoryClient<Channel> + Send),
    ) {
        loop {
            match timeout(ANSWER, client().report_calls(report.clone())).await {
                Ok(Ok(answer)) => {
                    let now = microseconds(SystemTime::now());
                    return self.told(&report.calls, answer.into_inner(), now);
                }
                Ok(Err(status)) if is_final(status.code()) => {
                    tracing::error!(%status, "calls of tenants were refused and are lost");
                    let now = microseconds(SystemTime::now());
                    return self.told(&report.calls, ReportCallsResponse::default(), now);
                }
                _ => metrics::counter!("postern_calls_reports_failed_total").increment(1),
            }
            sleep(RETRY).await;
        }
    }

    /// The table, of the month that it is.
    fn table(&self, now: u64) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if now >= table.month.ends {
            table.turn(now);
        }
        table
    }
}

impl Table {
    /// A new month: nothing is used yet, and what was not reported goes to the old one. A
    /// report that is under way is repeated until it is answered, as it was sent.
    fn turn(&mut self, now: u64) {
        let month = self.month;
        let left = self.tenants.drain().filter(|(_, count)| count.passed > 0);
        self.before
            .extend(left.map(|(whose, count)| month.row(&whose, count.passed)));
        self.month = Month::of(now);
    }
}

impl Month {
    fn of(now: u64) -> Self {
        let civil = i64::try_from(now).ok().and_then(|now| {
            let now = Timestamp::from_microsecond(now).ok()?;
            Some(now.to_zoned(TimeZone::UTC).date())
        });
        let first = civil.unwrap_or_default().first_of_month();
        let next = first.checked_add(1.month()).unwrap_or(Date::MAX);
        Self {
            begins: start(first),
            ends: start(next),
        }
    }

    fn row(self, whose: &str, calls: u64) -> Row {
        let (tenant, slug) = whose.split_once(BY).unwrap_or((whose, ""));
        Row {
            tenant_id: tenant.to_owned(),
            at: self.begins / 1_000_000,
            calls,
            tenant_slug: slug.to_owned(),
        }
    }
}

fn start(day: Date) -> u64 {
    let start = day.to_zoned(TimeZone::UTC).ok();
    let start = start.map(|start| start.timestamp().as_microsecond());
    start
        .and_then(|start| u64::try_from(start).ok())
        .unwrap_or(u64::MAX)
}

impl Count {
    fn total(&self) -> u64 {
        self.used + self.reported + self.passed
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use postern_directory::Used;

    use super::*;

    fn at(text: &str) -> u64 {
        let at: Timestamp = text.parse().unwrap();
        u64::try_from(at.as_microsecond()).unwrap()
    }

    fn answer(calls: &Calls, batch: &[Row], used: u64, limit: Option<u64>, now: u64) {
        let used = batch.iter().map(|row| Used {
            tenant_id: row.tenant_id.clone(),
            at: row.at,
            used,
            limit,
            tenant_slug: row.tenant_slug.clone(),
        });
        let used = used.collect();
        calls.told(batch, ReportCallsResponse { used }, now);
    }

    #[test]
    fn what_is_used_up_is_refused_until_the_month_ends() {
        let (calls, now) = (Calls::default(), at("2026-11-30T23:59:58Z"));
        calls.count("acme", now);
        let batch = calls.batch(now);
        assert_eq!(batch, [Month::of(now).row("acme", 1)]);
        answer(&calls, &batch, 48, Some(50), now);
        for _ in 0..2 {
            assert_eq!(calls.left("acme", now), Ok(()));
            calls.count("acme", now);
        }
        let exceeded = calls.left("acme", now).unwrap_err();
        assert_eq!(exceeded.resets, at("2026-12-01T00:00:00Z"));
        let reply = exceeded.reply(now);
        assert_eq!(reply.code(), Some(Code::CallsExceeded));
        assert_eq!(reply.header("retry-after"), Some(&b"2"[..]));
        assert!(reply.message().unwrap().contains("50 calls"), "{reply:?}");
        assert!(
            reply.message().unwrap().contains("2026-12-01T00:00:00Z"),
            "{reply:?}"
        );
        assert_eq!(calls.left("other", now), Ok(()));
        let next = at("2026-12-01T00:00:00Z");
        assert_eq!(calls.left("acme", next), Ok(()));
        assert_eq!(
            calls.batch(next),
            [Month::of(now).row("acme", 2)],
            "for the old month"
        );
        assert_eq!(calls.batch(next), []);
    }

    #[test]
    fn what_is_on_its_way_counts_and_a_larger_plan_is_heard_of() {
        let (calls, now) = (Calls::default(), at("2026-02-28T12:00:00Z"));
        calls.count("acme", now);
        answer(&calls, &calls.batch(now), 1, Some(3), now);
        calls.count("acme", now);
        let on_its_way = calls.batch(now);
        calls.count("acme", now);
        assert!(
            calls.left("acme", now).is_err(),
            "1 used, 1 reported, 1 passed"
        );
        answer(&calls, &on_its_way, 2, Some(3), now);
        assert!(calls.left("acme", now).is_err());
        answer(&calls, &calls.batch(now), 3, Some(3), now);
        assert!(calls.left("acme", now).is_err());
        let asked = calls.batch(now);
        assert_eq!(
            asked,
            [Month::of(now).row("acme", 0)],
            "asked for, as it was refused"
        );
        answer(&calls, &asked, 3, None, now);
        assert_eq!(calls.left("acme", now), Ok(()));
    }

    #[test]
    fn by_another_issuers_word_is_another_count() {
        let (calls, now) = (Calls::default(), at("2026-02-28T12:00:00Z"));
        const ACME: &str = "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV";
        let who = |slug: Option<&str>| Identity {
            tenant: Some(ACME.into()),
            tenant_slug: slug.map(str::to_owned),
            ..Identity::default()
        };
        let (common, own, evil) = (who(None), who(Some("acme")), who(Some("evil")));
        let whose = |who| whose(who).unwrap();
        for who in [&common, &own, &evil] {
            calls.count(&whose(who), now);
        }
        let mut batch = calls.batch(now);
        batch.sort_by(|a, b| a.tenant_slug.cmp(&b.tenant_slug));
        let rows = batch
            .iter()
            .map(|row| (&*row.tenant_id, &*row.tenant_slug, row.calls));
        let expected = [(ACME, "", 1), (ACME, "acme", 1), (ACME, "evil", 1)];
        assert_eq!(rows.collect::<Vec<_>>(), expected);
        // What the directory leaves out learns nothing.
        batch.truncate(2);
        answer(&calls, &batch, 2, Some(2), now);
        assert!(calls.left(&whose(&common), now).is_err());
        assert!(calls.left(&whose(&own), now).is_err());
        assert_eq!(calls.left(&whose(&evil), now), Ok(()));
    }

    #[test]
    fn what_is_no_id_is_not_counted() {
        for tenant in [None, Some(String::new()), Some("t".repeat(5_000))] {
            let who = Identity {
                tenant,
                ..Identity::default()
            };
            assert_eq!(whose(&who), None);
        }
    }

    #[test]
    fn who_does_not_call_is_forgotten() {
        let (calls, now) = (Calls::default(), at("2026-02-28T12:00:00Z"));
        calls.count("acme", now);
        answer(&calls, &calls.batch(now), 9, Some(9), now);
        assert_eq!(calls.batch(now + IDLE + 1), []);
        assert_eq!(calls.table(now).tenants.len(), 0);
    }
}
