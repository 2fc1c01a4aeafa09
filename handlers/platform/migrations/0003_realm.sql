-- The identity realms of tenants: which have to be made, or to follow a change.

create table postern.realm (
    tenant_id  text collate "C" primary key references postern.tenant (id),
    -- Null: it is as the tenant is.
    due_at     timestamptz default now(),
    attempts   integer not null default 0,
    last_error text
);

create index realm_due on postern.realm (due_at) where due_at is not null;

insert into postern.realm (tenant_id) select id from postern.tenant;

-- In the transaction that changes the tenant, so none is forgotten.
create function postern.realm_is_due() returns trigger language plpgsql as $$
begin
    insert into postern.realm as r (tenant_id) values (new.id)
    on conflict (tenant_id) do update set due_at = now(), attempts = 0;
    return null;
end
$$;

create trigger tenant_realm after insert or update on postern.tenant
    for each row execute function postern.realm_is_due();

-- A plan that gains the identity capability.
create function postern.realms_are_due() returns trigger language plpgsql as $$
begin
    update postern.realm r set due_at = now(), attempts = 0
    from postern.tenant t where t.id = r.tenant_id and t.plan = new.id;
    return null;
end
$$;

create trigger plan_realms after update of capabilities on postern.plan
    for each row when (old.capabilities is distinct from new.capabilities)
    execute function postern.realms_are_due();
