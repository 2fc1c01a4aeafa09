select n.nspname::text, 'v' || md5(n.oid::text || coalesce((
    select string_agg(part, ',' order by part) from (
        select 'c' || c.oid || '.' || c.xmin from pg_class c where c.relnamespace = n.oid
        union all
        select 'a' || a.attrelid || '.' || a.attnum || '.' || a.xmin
        from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 where c.relnamespace = n.oid
        union all
        select 'd' || d.oid || '.' || d.xmin
        from pg_class c join pg_attrdef d on d.adrelid = c.oid where c.relnamespace = n.oid
        union all
        select 'i' || i.indexrelid || '.' || i.xmin
        from pg_class c join pg_index i on i.indrelid = c.oid where c.relnamespace = n.oid
        union all
        select 'k' || k.oid || '.' || k.xmin from pg_constraint k where k.connamespace = n.oid
        union all
        select 'p' || p.oid || '.' || p.xmin
        from pg_class c join pg_policy p on p.polrelid = c.oid where c.relnamespace = n.oid
        union all
        select 't' || d.objoid || '.' || d.xmin from pg_class c
        join pg_description d on d.classoid = 'pg_class'::regclass and d.objoid = c.oid where c.relnamespace = n.oid
        union all
        select 'f' || p.oid || '.' || p.xmin from pg_proc p where p.pronamespace = n.oid) parts(part)), ''))
from pg_namespace n where n.nspname = any (array[$1]::text[])
