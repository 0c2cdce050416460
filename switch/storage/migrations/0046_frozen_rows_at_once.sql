-- depends: 0045_tariff_joined
-- The long tables that a close freezes are guarded statement by statement: of freezing a row, asking for each one whether its day is
-- closed and known was two thirds. They are written once, by one statement each, so nothing is lost: now no row of theirs ever changes.

CREATE FUNCTION refuse_rows_of_closed_days() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    found record;
BEGIN
    SELECT a.business_date, c.business_date IS NOT NULL AS known INTO found
      FROM (SELECT DISTINCT business_date FROM added) AS a
      LEFT JOIN clearing_day c USING (business_date)
      LEFT JOIN business_day b USING (business_date)
     WHERE c.business_date IS NULL OR b.state = 2
     LIMIT 1;
    IF found.known THEN
        RAISE EXCEPTION 'business day % is closed', found.business_date USING ERRCODE = 'restrict_violation';
    ELSIF found.business_date IS NOT NULL THEN
        RAISE EXCEPTION 'business day % is not being closed', found.business_date USING ERRCODE = 'foreign_key_violation';
    END IF;
    RETURN NULL;
END $$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['clearing_leg', 'clearing_original', 'clearing_source_line'] LOOP
        EXECUTE format('DROP TRIGGER closed ON %I', name);
        EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', name, name || '_business_date_fkey');
        EXECUTE format('CREATE TRIGGER closed AFTER INSERT ON %I REFERENCING NEW TABLE AS added'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_rows_of_closed_days()', name);
        EXECUTE format('CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON %I'
                       ' FOR EACH STATEMENT EXECUTE FUNCTION refuse_change()', name);
    END LOOP;
END $$;
