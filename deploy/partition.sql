-- Blotter's tables, hash-partitioned by conversation_uid. Once, on a database that `blotter db upgrade` has made:
--
--     psql "$DATABASE_URL" -v ON_ERROR_STOP=1 -c "SET blotter.partitions = 16" -f deploy/partition.sql
--
-- One transaction: columns, defaults, checks, keys, indexes and rows as they were, or nothing at all. The tables are locked
-- meanwhile, so workers wait (saves go on, into the buffer); with many rows in them stop the workers before. Nothing in
-- Blotter is set differently afterwards. (deploy/SCALE-OUT.md)
DO $$
DECLARE
  n int := coalesce(nullif(current_setting('blotter.partitions', true), ''), '16')::int;
  t text;
  options text;
  statement text;
  statements text[];
BEGIN
  -- In the order in which writers lock: items before their conversation.
  FOREACH t IN ARRAY ARRAY['artifact_versions', 'artifacts', 'tool_results', 'messages', 'conversations'] LOOP
    EXECUTE format('LOCK TABLE %I', t);
    IF (SELECT relkind FROM pg_class WHERE oid = t::regclass) <> 'r' THEN
      RAISE EXCEPTION '% is partitioned already', t;
    END IF;
    -- Keys and indexes, by their names, as they are to be made anew.
    SELECT array_agg(coalesce(
        'ALTER TABLE ' || quote_ident(t) || ' ADD CONSTRAINT ' || quote_ident(c.conname) || ' ' || pg_get_constraintdef(c.oid),
        pg_get_indexdef(i.indexrelid)))
      INTO statements
      FROM pg_index i LEFT JOIN pg_constraint c ON c.conindid = i.indexrelid AND c.contype IN ('p', 'u')
      WHERE i.indrelid = t::regclass;
    SELECT coalesce(' WITH (' || array_to_string(reloptions, ', ') || ')', '') INTO options
      FROM pg_class WHERE oid = t::regclass;
    EXECUTE format('ALTER TABLE %I RENAME TO %I', t, t || '_plain');
    EXECUTE format(
      'CREATE TABLE %I (LIKE %I INCLUDING ALL EXCLUDING INDEXES) PARTITION BY HASH (conversation_uid)', t, t || '_plain');
    FOR i IN 0 .. n - 1 LOOP
      EXECUTE format(
        'CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s)%s', t || '_p' || i, t, n, i, options);
    END LOOP;
    EXECUTE format('INSERT INTO %I SELECT * FROM %I', t, t || '_plain');
    EXECUTE format('DROP TABLE %I', t || '_plain');
    -- A unique index that did not hold the column would be refused here.
    FOREACH statement IN ARRAY statements LOOP
      EXECUTE statement;
    END LOOP;
  END LOOP;
END
$$;
