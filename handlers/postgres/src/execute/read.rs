//! A read: one flight.

use futures::join;
use postern_common::Failure;
use postern_contract::Code;
use std::time::Duration;

use super::session::{Role, Session};
use super::{Database, Rows, first_of, run};
use crate::errors::Fault;
use crate::sql::Sql;

/// One statement needs no snapshot besides its own.
const BEGIN: &str = "BEGIN READ ONLY";
/// Several see the same rows.
const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// At most so many bytes of the statements beside the first.
const MAX_SIDE: usize = 1 << 20;

/// How much longer than its statements a flight may take.
const SLACK: Duration = Duration::from_secs(1);

/// The flight was given up: what PostgreSQL says of a statement that takes too long.
pub(super) fn late() -> Fault {
    let message = "the statement took too long; narrow it, or add an index";
    Fault::from(Failure::new(Code::StatementTimeout, message))
}

impl Database {
    /// Runs a statement, and up to two beside it on the same snapshot. The answer of the
    /// first is bounded by the configuration.
    pub(crate) async fn read(
        &self,
        session: &Session,
        main: &Sql,
        beside: [Option<&Sql>; 2],
    ) -> Result<(Rows, [Rows; 2]), Fault> {
        let lease = self.lease(session.tenant).await?;
        let client = lease.client();
        let begin = match beside {
            [None, None] => BEGIN,
            _ => BEGIN_SNAPSHOT,
        };
        let optional = async |sql: Option<&Sql>| match sql {
            Some(sql) => run(client, sql, MAX_SIDE).await,
            None => Ok(Rows::default()),
        };
        // Each statement has its own bound in PostgreSQL, which cannot keep to it in all that
        // it does.
        let statements = 1 + beside.iter().flatten().count();
        let deadline = self.bounds.statement * u32::try_from(statements).unwrap_or(1) + SLACK;
        // In this order: each is sent when it is first polled.
        let flight = async {
            join!(
                client.batch_execute(begin),
                session.enter(client, Role::Data, self.bounds.statement),
                run(client, main, self.bounds.max_answer),
                optional(beside[0]),
                optional(beside[1]),
                client.batch_execute("COMMIT"),
            )
        };
        let (begin, entered, main, one, other, end) = tokio::time::timeout(deadline, flight)
            .await
            .map_err(|_| late())?;
        // What was given up in the middle is not at rest.
        let too_large = matches!(main, Err(Fault::TooLarge(_)));
        if too_large || main.as_ref().is_ok_and(Rows::are_long) {
            lease.has_grown();
        }
        if !too_large && end.is_ok() {
            lease.settle();
        }
        match (main, one, other) {
            (Ok(main), Ok(one), Ok(other)) if begin.is_ok() && entered.is_ok() && end.is_ok() => {
                Ok((main, [one, other]))
            }
            (main, one, other) => {
                let faults = [
                    begin.err().map(Fault::from),
                    entered.err().map(Fault::from),
                    main.err(),
                    one.err(),
                    other.err(),
                    end.err().map(Fault::from),
                ];
                Err(first_of(faults)
                    .unwrap_or_else(|| Fault::internal("a flight without a failure failed")))
            }
        }
    }
}
