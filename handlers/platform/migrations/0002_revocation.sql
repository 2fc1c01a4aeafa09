-- Tokens that are refused although they are otherwise valid.

-- Raised by each revocation and locked from there to the commit, so that revocations
-- become visible in their order.
alter table postern.directory_revision add revocation bigint not null default 0;

create table postern.revocation (
    revision   bigint primary key,
    -- `iss` of the tokens.
    issuer     text collate "C" not null check (length(issuer) between 1 and 2048),
    -- jti: one token. sid: a session. sub: those of a subject issued up to revoked_at.
    claim      text collate "C" not null check (claim in ('jti', 'sid', 'sub')),
    value      text collate "C" not null check (length(value) between 1 and 512),
    revoked_at timestamptz not null default now(),
    -- No token that is meant is valid any more: the row is swept.
    expires_at timestamptz not null,
    constraint revocation_once unique (issuer, claim, value)
);

create index revocation_by_expiry on postern.revocation (expires_at);
