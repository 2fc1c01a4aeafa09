CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE customers (
    id int8 PRIMARY KEY, name text NOT NULL, email text UNIQUE, country varchar(2), vip bool,
    tags text[] NOT NULL DEFAULT '{}', meta jsonb, score numeric, joined timestamptz,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(customers)
CREATE TABLE orders (
    id int8 PRIMARY KEY, customer_id int8 REFERENCES customers, total numeric(12,2) NOT NULL DEFAULT 0 CHECK (total >= 0), state text DEFAULT 'new',
    placed date, tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(orders)
CREATE TABLE products (
    id int8 PRIMARY KEY, name text NOT NULL, words tsvector GENERATED ALWAYS AS (to_tsvector('english', name)) STORED,
    season daterange, price numeric(10,2), stock int4,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(products)
CREATE TABLE lines (
    order_id int8 REFERENCES orders ON DELETE CASCADE, line int4, product_id int8 NOT NULL REFERENCES products, quantity int4 NOT NULL DEFAULT 1,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'),
    PRIMARY KEY (order_id, line));
$guard(lines)
CREATE TABLE labels (id int8 PRIMARY KEY, name text NOT NULL,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(labels)
CREATE TABLE product_labels (product_id int8 REFERENCES products, label_id int8 REFERENCES labels,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'),
    PRIMARY KEY (product_id, label_id));
$guard(product_labels)
CREATE TABLE employees (id int8 PRIMARY KEY, name text NOT NULL, manager_id int8 REFERENCES employees,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(employees)
CREATE TABLE profiles (customer_id int8 PRIMARY KEY REFERENCES customers, bio text,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(profiles)
CREATE TABLE transfers (id int8 PRIMARY KEY, from_id int8 REFERENCES customers, to_id int8 REFERENCES customers, amount numeric,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(transfers)
CREATE TABLE things (
    id int8 PRIMARY KEY, i8 int8, num numeric, f8 float8, ts timestamptz, d date, u uuid, b bytea, j json, jb jsonb,
    arr int4[], r int4range, m mood, bo bool, iv interval, ch char(5), "weird col" text, "select" text, "a.b" text, "q""uote" text,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(things)
CREATE TABLE counters (id int8 GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text DEFAULT 'unnamed', n int4 DEFAULT 7 NOT NULL, at timestamptz DEFAULT now(),
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(counters)
CREATE TABLE plain (id int8, v text,
    tenant_id text NOT NULL DEFAULT current_setting('app.tenant_id'), workspace_id text NOT NULL DEFAULT current_setting('app.workspace_id'));
$guard(plain)
CREATE TABLE unguarded (id int8 PRIMARY KEY);
GRANT ALL ON unguarded TO $schema_data;
-- Guarded by name only; and what bars all the same.
CREATE TABLE open_guarded (id int8 PRIMARY KEY, tenant_id text, workspace_id text);
$guard(open_guarded);
CREATE POLICY everybody ON open_guarded FOR SELECT USING (true);
CREATE TABLE barred (id int8 PRIMARY KEY, tenant_id text, workspace_id text);
$guard(barred);
CREATE POLICY everybody ON barred USING (true);
CREATE POLICY bar ON barred AS RESTRICTIVE USING (tenant_id = current_setting('app.tenant_id', true)
    AND workspace_id = current_setting('app.workspace_id', true));
-- What bars writes only bars no reads.
CREATE TABLE half_barred (id int8 PRIMARY KEY, tenant_id text, workspace_id text);
$guard(half_barred);
CREATE POLICY everybody ON half_barred USING (true);
CREATE POLICY bar ON half_barred AS RESTRICTIVE WITH CHECK (tenant_id = current_setting('app.tenant_id', true)
    AND workspace_id = current_setting('app.workspace_id', true));
CREATE TABLE half_guarded (id int8 PRIMARY KEY);
ALTER TABLE half_guarded ENABLE ROW LEVEL SECURITY;
GRANT ALL ON half_guarded TO $schema_data;
CREATE VIEW big_orders WITH (security_invoker = true) AS SELECT id, total FROM orders WHERE total > 50;
GRANT SELECT ON big_orders TO $schema_data;
CREATE VIEW leaky AS SELECT id FROM orders;
GRANT SELECT ON leaky TO $schema_data;
CREATE FUNCTION add(a int4, b int4 DEFAULT 10) RETURNS int4 LANGUAGE sql IMMUTABLE AS 'SELECT a + b';
CREATE FUNCTION orders_of(customer int8) RETURNS SETOF orders LANGUAGE sql STABLE AS 'SELECT o.* FROM orders o WHERE o.customer_id = customer';
CREATE FUNCTION echo(json) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT $1';
CREATE FUNCTION pair(OUT a int4, OUT b text) LANGUAGE sql AS 'SELECT 1, ''x''::text';
CREATE FUNCTION series(n int4) RETURNS SETOF int4 LANGUAGE sql AS 'SELECT generate_series(1, n)';
CREATE FUNCTION nothing() RETURNS void LANGUAGE sql AS '';
CREATE FUNCTION fails() RETURNS int4 LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''the stock is empty''; END';
CREATE FUNCTION who() RETURNS text LANGUAGE sql AS 'SELECT current_user || '' '' || current_setting(''app.user_id'')';
CREATE FUNCTION bump(order_id int8) RETURNS numeric LANGUAGE sql AS 'UPDATE orders SET total = total + 1 WHERE id = order_id RETURNING total';
CREATE FUNCTION closed() RETURNS int4 LANGUAGE sql AS 'SELECT 1';
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA $schema TO $schema_data;
REVOKE EXECUTE ON FUNCTION closed() FROM PUBLIC, $schema_data;

INSERT INTO customers (id, name, email, country, vip, tags, meta, score, joined) VALUES
    (1, 'Ada', 'ada@example.com', 'GB', true, '{math,code}', '{"age": 36, "address": {"city": "London", "zip": ["a", "b"]}}', 9.5, '2024-01-01T10:00:00Z'),
    (2, 'Bob', 'bob@example.com', 'US', false, '{}', '{"age": 20}', 1, '2024-02-01T10:00:00Z'),
    (3, 'Cleo', NULL, 'EG', NULL, '{cats}', NULL, NULL, NULL),
    (4, 'D, "e" (f)', 'd@example.com', 'GB', false, '{"a b","c,d"}', '{"age": null, "k": 10}', 2.5, '2024-03-01T10:00:00Z');
INSERT INTO orders (id, customer_id, total, state, placed) VALUES
    (10, 1, 100.00, 'paid', '2024-01-05'), (11, 1, 20.50, 'new', '2024-01-06'), (12, 2, 60.00, 'paid', '2024-02-05'), (13, NULL, 0, NULL, NULL);
INSERT INTO products (id, name, season, price, stock) VALUES
    (100, 'red running shoes', '[2024-01-01,2024-07-01)', 59.90, 3), (101, 'blue shoe', '[2024-06-01,2025-01-01)', 40, 0), (102, 'green hat', NULL, NULL, NULL);
INSERT INTO lines (order_id, line, product_id, quantity) VALUES (10, 1, 100, 1), (10, 2, 101, 2), (11, 1, 102, 3), (12, 1, 100, 4);
INSERT INTO labels (id, name) VALUES (1, 'sale'), (2, 'sport'), (3, 'unused');
INSERT INTO product_labels (product_id, label_id) VALUES (100, 1), (100, 2), (101, 1);
INSERT INTO employees (id, name, manager_id) VALUES (1, 'Boss', NULL), (2, 'Lead', 1), (3, 'Dev', 2), (4, 'Ops', 2);
INSERT INTO profiles (customer_id, bio) VALUES (1, 'wrote the first program');
INSERT INTO transfers (id, from_id, to_id, amount) VALUES (1, 1, 2, 5), (2, 2, 1, 7);
INSERT INTO things (id, i8, num, f8, ts, d, u, b, j, jb, arr, r, m, bo, iv, ch, "weird col", "select", "a.b", "q""uote") VALUES
    (1, 9223372036854775807, 1234567890123456789012345678901234567890, 'NaN', '2024-01-15T10:00:00.123456Z', '2024-01-15',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '\xdeadbeef', '{"b":1,"a":[1,2,{"x":"y"}]}', '{"b": 1, "a": [1, 2, {"x": "y"}]}',
     '{1,2,3}', '[1,10)', 'happy', true, '1 day 2 hours', 'ab', 'w', 's', 'dot', 'quote'),
    (2, -9223372036854775808, -0.10, 'Infinity', 'infinity', '-infinity', NULL, NULL, '[]', '[]', '{}', 'empty', 'sad', false, NULL, NULL, NULL, NULL, NULL, NULL),
    (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO plain (id, v) VALUES (1, 'a'), (1, 'b');
