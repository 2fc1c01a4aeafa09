-- The control plane: plans, tenants, workspaces, what provisions them, what
-- tells runners of changes, and the audit trail.

-- Plans are data: an operator changes limits by an UPDATE, and runners hear of it.
create table postern.plan (
    id              text collate "C" primary key,
    position        integer not null unique,
    -- Null: no limit.
    workspaces      bigint check (workspaces >= 0),
    tables          bigint check (tables >= 0),
    collections     bigint check (collections >= 0),
    functions       bigint check (functions >= 0),
    storage_gb      bigint check (storage_gb >= 0),
    calls_per_month bigint check (calls_per_month >= 0),
    -- What the plan includes besides: identity.
    capabilities    text[] not null default '{}'
);

insert into postern.plan values
    ('starter',    1, 3,    20,   10,   5,    5,    50000,   '{}'),
    ('growth',     2, 10,   100,  50,   25,   50,   500000,  '{identity}'),
    ('regulated',  3, 25,   500,  200,  100,  500,  5000000, '{identity}'),
    ('enterprise', 4, null, null, null, null, null, null,    '{identity}');

create table postern.tenant (
    id             text collate "C" primary key,
    -- For good: a deactivated tenant keeps its slug.
    slug           text collate "C" not null constraint tenant_slug unique,
    display_name   text not null,
    plan           text collate "C" not null references postern.plan (id),
    status         text not null check (status in ('provisioning', 'active', 'suspended', 'deactivated')),
    admin_email    text not null,
    metadata       jsonb not null default '{}',
    -- Raised by each change: the ETag.
    version        bigint not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    deactivated_at timestamptz
);

create table postern.workspace (
    id             text collate "C" primary key,
    tenant_id      text collate "C" not null references postern.tenant (id),
    slug           text collate "C" not null,
    display_name   text not null,
    status         text not null check (status in ('provisioning', 'active', 'suspended', 'deactivated')),
    -- What the workspace is to have.
    capabilities   text[] not null,
    -- What exists in a backend; the rest waits in the outbox.
    provisioned    text[] not null default '{}',
    -- Which cluster holds its data.
    cluster        text not null default 'default',
    version        bigint not null default 1,
    created_at     timestamptz not null default now(),
    updated_at     timestamptz not null default now(),
    deactivated_at timestamptz,
    -- From then on its data may be destroyed.
    purge_after    timestamptz,
    constraint workspace_slug unique (tenant_id, slug)
);

create index workspace_by_tenant on postern.workspace (tenant_id, id);

-- What a tenant uses besides its workspaces, written by the families.
create table postern.usage (
    tenant_id text collate "C" not null references postern.tenant (id),
    quota     text not null check (quota in ('tables', 'collections', 'functions', 'storageGb', 'callsPerMonth')),
    -- The first day of the month for what is counted by month, else the epoch.
    period    date not null default 'epoch',
    used      bigint not null default 0,
    primary key (tenant_id, quota, period)
);

-- Steps that follow a committed change, in other systems. Each can be repeated.
create table postern.outbox (
    id           bigint generated always as identity primary key,
    workspace_id text collate "C" not null references postern.workspace (id),
    capability   text not null,
    step         text not null check (step in ('provision', 'purge')),
    attempts     integer not null default 0,
    -- Not tried before.
    due_at       timestamptz not null default now(),
    last_error   text,
    created_at   timestamptz not null default now(),
    done_at      timestamptz
);

create index outbox_due on postern.outbox (due_at) where done_at is null;
create index outbox_by_workspace on postern.outbox (workspace_id);

-- The audit trail. No foreign keys: it outlives what it tells of.
create table postern.audit_event (
    id             text collate "C" primary key,
    at             timestamptz not null default now(),
    tenant_id      text collate "C",
    workspace_id   text collate "C",
    actor          text not null,
    action         text not null,
    outcome        text not null check (outcome in ('done', 'denied')),
    -- The error code of a denial.
    code           text,
    resource       text,
    correlation_id text not null,
    client_address text not null,
    -- What changed: field → new value.
    changes        jsonb
);

create index audit_event_by_tenant on postern.audit_event (tenant_id, id desc);

-- Every change that runners have to hear of, numbered in the order of commits.
create table postern.directory_revision (
    only_row boolean primary key default true check (only_row),
    revision bigint not null
);

insert into postern.directory_revision (revision) values (1);

create table postern.directory_change (
    revision     bigint primary key,
    -- Both null: forget everything.
    tenant_id    text collate "C",
    workspace_id text collate "C",
    at           timestamptz not null default now()
);

-- The revision's row stays locked from here to the commit, so revisions become
-- visible in their order. The triggers are deferred: it is the last lock that a
-- transaction takes, and so never part of a deadlock.
create function postern.note_change() returns trigger language plpgsql as $$
declare
    next bigint;
begin
    update postern.directory_revision set revision = revision + 1 returning revision into next;
    insert into postern.directory_change (revision, tenant_id, workspace_id)
    values (next,
            case when tg_table_name = 'tenant' then new.id end,
            case when tg_table_name = 'workspace' then new.id end);
    perform pg_notify('postern_directory', '');
    return null;
end
$$;

create constraint trigger tenant_changed after insert or update on postern.tenant
    deferrable initially deferred for each row execute function postern.note_change();
create constraint trigger workspace_changed after insert or update on postern.workspace
    deferrable initially deferred for each row execute function postern.note_change();
create constraint trigger plan_changed after insert or update on postern.plan
    deferrable initially deferred for each row execute function postern.note_change();
