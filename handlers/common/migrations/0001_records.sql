-- The idempotency records: the truth about what a key has done, committed with
-- the effect. No workspace's role can reach this schema.

create table postern_idempotency.record (
    -- SHA-256 over issuer, tenant, subject, family, workspace and key.
    scope       bytea primary key check (length(scope) = 32),
    -- The token's tenant, empty for a platform token: whose quota it counts in.
    tenant      text collate "C" not null,
    fingerprint bytea not null check (length(fingerprint) = 32),
    -- Sealed. Null while it runs, which nobody else sees before the commit; and
    -- where an effect without a transaction was started and never ended.
    outcome     bytea,
    -- What the outcome counts in the tenant's quota.
    bytes       bigint not null default 0,
    created_at  timestamptz not null default now(),
    -- From then on the record counts as absent, swept or not.
    expires_at  timestamptz not null
);

create index record_expires_at on postern_idempotency.record (expires_at);

-- Bytes of outcomes kept, by tenant.
create table postern_idempotency.kept (
    tenant text collate "C" primary key,
    bytes  bigint not null
);
