-- One schema as one JSON document. $1: the schema, $2: the role that requests run as.
with recursive
wanted as (select oid, nspname, nspowner from pg_namespace where nspname = $1),
-- What stands beneath domains, which may be over domains.
beneath(oid, base) as (
    select t.oid, t.oid from pg_type t where t.typtype <> 'd'
    union all
    select d.oid, b.base from pg_type d join beneath b on d.typbasetype = b.oid where d.typtype = 'd'),
-- The types that occur here, once each.
used as (
    select distinct t.oid
    from wanted w
    join pg_class c on c.relnamespace = w.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join pg_type t on t.oid = a.atttypid),
types as (
    select u.oid,
           quote_ident(dn.nspname) || '.' || quote_ident(d.typname) as declared,
           json_build_object(
               'name', t.typname,
               'sql', quote_ident(n.nspname) || '.' || quote_ident(t.typname),
               'array', case when at.oid is not null
                        then quote_ident(an.nspname) || '.' || quote_ident(at.typname) end,
               'category', t.typcategory) as base
    from used u
    join pg_type d on d.oid = u.oid join pg_namespace dn on dn.oid = d.typnamespace
    join beneath b on b.oid = u.oid
    join pg_type t on t.oid = b.base join pg_namespace n on n.oid = t.typnamespace
    left join pg_type at on at.oid = t.typarray left join pg_namespace an on an.oid = at.typnamespace),
columns as (
    select a.attrelid, json_agg(json_build_object(
               'name', a.attname,
               'shown_type', format_type(a.atttypid, a.atttypmod),
               'declared', t.declared,
               'base', t.base,
               'not_null', a.attnotnull,
               'default', case
                   when a.attidentity <> '' then (
                       select format('nextval(%L::regclass)', s.objid) from pg_depend s
                       where s.refclassid = 'pg_class'::regclass and s.refobjid = a.attrelid
                         and s.refobjsubid = a.attnum and s.classid = 'pg_class'::regclass and s.deptype = 'i')
                   when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end,
               'identity', nullif(a.attidentity, ''),
               'generated', a.attgenerated <> '') order by a.attnum) as list
    from wanted w
    join pg_class c on c.relnamespace = w.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
    join types t on t.oid = a.atttypid
    left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    group by a.attrelid),
indexed as (
    select i.indrelid, i.indisprimary, i.indisunique and i.indimmediate and i.indisvalid
               and i.indpred is null and i.indexprs is null as is_key,
           c.relname, m.amname,
           coalesce((select json_agg(a.attname order by k.place)
                     from unnest(i.indkey) with ordinality k(attnum, place)
                     join pg_attribute a on a.attrelid = i.indrelid and a.attnum = k.attnum
                     where k.place <= i.indnkeyatts), '[]') as columns
    from wanted w
    join pg_class c on c.relnamespace = w.oid and c.relkind in ('i', 'I')
    join pg_index i on i.indexrelid = c.oid
    join pg_am m on m.oid = c.relam),
foreign_keys as (
    select k.conrelid, json_agg(json_build_object(
               'name', k.conname,
               'columns', (select json_agg(a.attname order by p.place)
                           from unnest(k.conkey) with ordinality p(attnum, place)
                           join pg_attribute a on a.attrelid = k.conrelid and a.attnum = p.attnum),
               'target', t.relname,
               'target_columns', (select json_agg(a.attname order by p.place)
                           from unnest(k.confkey) with ordinality p(attnum, place)
                           join pg_attribute a on a.attrelid = k.confrelid and a.attnum = p.attnum),
               'on_delete', k.confdeltype) order by k.conname) as list
    from wanted w
    join pg_constraint k on k.connamespace = w.oid and k.contype = 'f' and k.conparentid = 0
    join pg_class t on t.oid = k.confrelid and t.relnamespace = w.oid
    group by k.conrelid),
-- Tables that the policies for this role open to other workspaces: one that lets rows in and
-- names neither setting, unless another bars all the same. Without a policy no row passes.
barring as (
    select p.polrelid, p.polpermissive, p.polcmd, x.qual is not null as filters,
           coalesce(x.qual, x.checked) is not null
               and coalesce(x.qual ~ 'app\.tenant_id' and x.qual ~ 'app\.workspace_id', true)
               and coalesce(x.checked ~ 'app\.tenant_id' and x.checked ~ 'app\.workspace_id', true) as bars
    from wanted w
    join pg_class c on c.relnamespace = w.oid and c.relkind in ('r', 'p')
    join pg_policy p on p.polrelid = c.oid
    cross join lateral (select pg_get_expr(p.polqual, p.polrelid) as qual,
                               pg_get_expr(p.polwithcheck, p.polrelid) as checked) x
    where exists (select from unnest(p.polroles) r
                  where r = 0 or pg_has_role(to_regrole(quote_ident($2)), r, 'usage'))),
opened as (
    select polrelid from barring group by polrelid
    having bool_or(polpermissive and not bars) and not bool_or(not polpermissive and polcmd = '*' and filters and bars)),
tables as (
    select json_agg(json_build_object(
               'schema', w.nspname,
               'name', c.relname,
               'kind', c.relkind,
               'protected', case
                   when c.relkind in ('r', 'p') then c.relrowsecurity and c.relforcerowsecurity
                       and not exists (select from opened o where o.polrelid = c.oid)
                   when c.relkind = 'v' then exists (
                       select from pg_options_to_table(c.reloptions)
                       where option_name = 'security_invoker' and option_value::boolean)
                   else false end,
               'own', c.relkind in ('r', 'p') and c.relowner = w.nspowner,
               'comment', obj_description(c.oid, 'pg_class'),
               'columns', coalesce(l.list, '[]'),
               'keys', coalesce((select json_agg(json_build_object(
                       'name', i.relname, 'primary', i.indisprimary, 'columns', i.columns)
                       order by i.indisprimary desc, i.relname)
                   from indexed i where i.indrelid = c.oid and i.is_key), '[]'),
               'references', coalesce(f.list, '[]'),
               'indexes', coalesce((select json_agg(json_build_object(
                       'name', i.relname, 'method', i.amname, 'columns', i.columns) order by i.relname)
                   from indexed i where i.indrelid = c.oid and not i.is_key), '[]'))) as list
    from wanted w
    join pg_class c on c.relnamespace = w.oid and c.relkind in ('r', 'p', 'v', 'm', 'f')
    left join columns l on l.attrelid = c.oid
    left join foreign_keys f on f.conrelid = c.oid
    -- A partition is served through its parent.
    where not c.relispartition),
functions as (
    select json_agg(json_build_object(
               'schema', w.nspname,
               'name', p.proname,
               'arguments', coalesce((
                   select json_agg(json_build_object(
                       'name', coalesce(p.proargnames[a.place], ''),
                       'sql', quote_ident(n.nspname) || '.' || quote_ident(t.typname),
                       'shown_type', format_type(t.oid, null)) order by a.place)
                   from unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]))
                        with ordinality a(type, place)
                   join pg_type t on t.oid = a.type
                   join pg_namespace n on n.oid = t.typnamespace
                   where coalesce(p.proargmodes[a.place], 'i') in ('i', 'b', 'v')), '[]'),
               'defaults', p.pronargdefaults,
               'returns_set', p.proretset,
               'returns_table', (select r.relname from pg_class r
                                 where r.oid = rt.typrelid and r.relnamespace = w.oid and r.relkind in ('r', 'p', 'v')),
               'returns_void', rt.oid = 'void'::regtype)) as list
    from wanted w
    join pg_proc p on p.pronamespace = w.oid and p.prokind = 'f'
    join pg_type rt on rt.oid = p.prorettype and rt.oid not in ('trigger'::regtype, 'event_trigger'::regtype)
    where has_function_privilege(to_regrole(quote_ident($2)), p.oid, 'execute'))
select json_build_object(
    'fingerprint', coalesce((select fingerprint from (FINGERPRINTS) f(schema, fingerprint)), ''),
    'tenant', (select tenant from postern_data.workspace where schema = $1),
    'tables', coalesce((select list from tables), '[]'),
    'functions', coalesce((select list from functions), '[]'))::text
