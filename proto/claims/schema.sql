-- The claim store. Losing it costs speed, never correctness: hence unlogged.
CREATE SCHEMA IF NOT EXISTS postern_claims;

CREATE UNLOGGED TABLE IF NOT EXISTS postern_claims.claim (
    -- SHA-256 over issuer, tenant, subject, family, workspace and key.
    scope       bytea PRIMARY KEY CHECK (length(scope) = 32),
    -- Who may extend or release it while it runs.
    holder      bytea NOT NULL CHECK (length(holder) = 16),
    -- Running: when the lease ends. Done: when the key is forgotten.
    lapses_at   timestamptz NOT NULL,
    -- Done only.
    fingerprint bytea CHECK (length(fingerprint) = 32),
    -- Done only; null where it was too large to copy: the record has it.
    outcome     bytea
);

CREATE INDEX IF NOT EXISTS claim_lapses_at ON postern_claims.claim (lapses_at);
