-- The last report of calls of each process that reports them: one that is repeated
-- because its answer was lost counts once.
create table postern.calls_report (
    reporter bytea primary key check (octet_length(reporter) = 16),
    sequence bigint not null,
    at       timestamptz not null default now()
);

create index calls_report_by_age on postern.calls_report (at);
