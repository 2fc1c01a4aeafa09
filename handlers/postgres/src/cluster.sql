-- What a data cluster needs besides its workspaces. Every statement can be repeated.
begin;
select pg_advisory_xact_lock(hashtextextended('postern_data', 0));

create schema if not exists postern_data;
revoke all on schema postern_data from public;

-- The idempotency records of rows and tables, committed with the effect by the data login
-- itself. No workspace's role can reach this schema.
create table if not exists postern_data.record (
    -- SHA-256 over issuer, tenant, subject, family, workspace and key.
    scope       bytea primary key check (length(scope) = 32),
    tenant      text collate "C" not null,
    fingerprint bytea not null check (length(fingerprint) = 32),
    -- Sealed. Null while it runs, which nobody else sees before the commit.
    outcome     bytea,
    bytes       bigint not null default 0,
    created_at  timestamptz not null default now(),
    -- From then on the record counts as absent, swept or not.
    expires_at  timestamptz not null
);
create index if not exists record_expires_at on postern_data.record (expires_at);

-- Bytes of outcomes kept, by tenant.
create table if not exists postern_data.kept (
    tenant text collate "C" primary key,
    bytes  bigint not null
);

-- Whose a schema is, for quotas.
create table if not exists postern_data.workspace (
    schema text collate "C" primary key,
    tenant text collate "C" not null
);
create index if not exists workspace_tenant on postern_data.workspace (tenant);

do $do$
declare
    login text := $login;
    secret text := $password;
    place record;
    member text;
begin
    if not exists (select from pg_roles where rolname = login) then
        execute format('create role %I login noinherit nosuperuser nocreatedb nocreaterole nobypassrls noreplication', login);
    end if;
    if secret is not null then
        execute format('alter role %I password %L', login, secret);
    end if;
    if exists (select from pg_roles where rolname = login and (rolsuper or rolbypassrls or rolinherit)) then
        raise exception 'the data login % must not be a superuser, have BYPASSRLS or inherit', login;
    end if;
    -- Workspaces that were made before: theirs to reach, and to count.
    for place in select n.nspname, substring(obj_description(n.oid, 'pg_namespace') from 'of tenant (tnt_[0-9A-Z]+)') as tenant
                 from pg_namespace n where starts_with(n.nspname, 'ws_') loop
        if place.tenant is not null then
            insert into postern_data.workspace values (place.nspname, place.tenant) on conflict do nothing;
        end if;
        for member in select rolname from pg_roles where rolname in (place.nspname || '_owner', place.nspname || '_data') loop
            execute format('grant %I to %I', member, login);
        end loop;
    end loop;

    execute format('grant usage on schema postern_data to %I', login);
    execute format('grant select, insert, update, delete on postern_data.record, postern_data.kept to %I', login);
    execute format('grant select on postern_data.workspace to %I', login);

    -- Only a superuser makes event triggers; without one schemas are looked at instead.
    if (select rolsuper from pg_roles where rolname = current_user) then
        create or replace function postern_data.tell() returns event_trigger
            language plpgsql security definer set search_path = pg_catalog as $tell$
        declare
            changed text[];
            name text;
        begin
            -- A policy has no schema of its own, its table has.
            if tg_event = 'sql_drop' then
                changed := array(select coalesce(schema_name, address_names[1]) from pg_event_trigger_dropped_objects());
            elsif tg_tag in ('GRANT', 'REVOKE') then
                -- It names nothing: what this transaction has written tells where it was.
                changed := array(select place::regnamespace::text from (
                    select relnamespace, xmin from pg_class union all
                    select pronamespace, xmin from pg_proc) o(place, written)
                    where age(written) <= age(pg_current_xact_id()::xid));
            else
                changed := array(select coalesce(d.schema_name, c.relnamespace::regnamespace::text)
                    from pg_event_trigger_ddl_commands() d
                    left join pg_policy p on d.classid = 'pg_policy'::regclass and p.oid = d.objid
                    left join pg_class c on c.oid = p.polrelid);
            end if;
            for name in select distinct n from unnest(changed) n where starts_with(n, 'ws_') loop
                perform pg_notify('postern_catalog', name);
            end loop;
        end
        $tell$;
        if not exists (select from pg_event_trigger where evtname = 'postern_catalog') then
            create event trigger postern_catalog on ddl_command_end execute function postern_data.tell();
            create event trigger postern_catalog_drop on sql_drop execute function postern_data.tell();
        end if;
    end if;
end
$do$;
commit;
