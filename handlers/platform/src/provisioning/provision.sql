-- What a workspace needs in its cluster. Every statement can be repeated.
do $do$
declare
    schema_name text := $schema;
    owner_role  text := $owner;
    data_role   text := $data;
    login_role  text := $login;
begin
    if not exists (select from pg_roles where rolname = owner_role) then
        execute format('create role %I nologin noinherit', owner_role);
    end if;
    if not exists (select from pg_roles where rolname = data_role) then
        execute format('create role %I nologin noinherit', data_role);
    end if;

    -- Who is not a superuser must be a member of the role that it makes the owner.
    if not (select rolsuper from pg_roles where rolname = current_user) then
        execute format('grant %I to current_user', owner_role);
    end if;

    execute format('create schema if not exists %I authorization %I', schema_name, owner_role);
    execute format('comment on schema %I is %L', schema_name, $comment);
    execute format('revoke all on schema %I from public', schema_name);
    execute format('grant usage on schema %I to %I', schema_name, data_role);
    execute format('alter default privileges for role %I in schema %I grant select, insert, update, delete on tables to %I',
                   owner_role, schema_name, data_role);
    execute format('alter default privileges for role %I in schema %I grant usage on sequences to %I',
                   owner_role, schema_name, data_role);
    -- Functions are executable by everybody unless their owner says otherwise.
    execute format('alter default privileges for role %I revoke execute on functions from public', owner_role);

    if login_role is not null then
        -- Two workspaces may be made at once, and this role is shared.
        begin
            execute format('create role %I login noinherit', login_role);
        exception when duplicate_object or unique_violation then
            null;
        end;
        execute format('grant %I, %I to %I', owner_role, data_role, login_role);
    end if;

    -- Whose the schema is, where the postgres family serves this cluster: quotas are counted by it.
    if to_regclass('postern_data.workspace') is not null then
        execute format('insert into postern_data.workspace values (%L, %L) on conflict (schema) do update set tenant = excluded.tenant',
                       schema_name, $tenant);
    end if;
end
$do$;
