//! `docs/errors.md`: the closed list of codes.

use std::fmt::Write as _;

use postern_contract::Code;
use postern_contract::code::Outcome;

pub(super) fn render() -> String {
    let mut page = String::from(
        "<!-- Generated from proto/contract/src/code.rs by `make generate`. -->\n\
         # Error codes\n\n\
         Every refusal is `{\"error\":{\"code\",\"message\",\"correlationId\",\"timestamp\"}}`, with\n\
         `details`, a list of `{field,reason}`, where several things are wrong. The list is closed: a\n\
         code keeps its meaning. *Kept* says whether an outcome with this code is replayed to a retry\n\
         with the same Idempotency-Key ([how](idempotency.md)); after any other, the retry runs anew.\n\n\
         | code | status | kept | what to do |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let statuses: Vec<_> = code.statuses().iter().map(u16::to_string).collect();
        let kept = if code.outcome() == Outcome::Kept {
            "yes"
        } else {
            ""
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            page,
            "| `{code}` | {} | {kept} | {} |",
            statuses.join(", "),
            code.mend()
        );
    }
    page
}
