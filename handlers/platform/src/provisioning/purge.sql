-- Destroys what provision.sql made, with all data. Can be repeated.
do $do$
declare
    role_name text;
begin
    execute format('drop schema if exists %I cascade', $schema);
    if to_regclass('postern_data.workspace') is not null then
        execute format('delete from postern_data.workspace where schema = %L', $schema);
    end if;
    foreach role_name in array array[$data, $owner] loop
        if exists (select from pg_roles where rolname = role_name) then
            -- Takes the default privileges along.
            if not (select rolsuper from pg_roles where rolname = current_user) then
                execute format('grant %I to current_user', role_name);
            end if;
            execute format('drop owned by %I cascade', role_name);
            execute format('drop role %I', role_name);
        end if;
    end loop;
end
$do$;
