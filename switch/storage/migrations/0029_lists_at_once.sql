-- depends: 0025_terminal_lists
-- What terminals should hold, for one and for a whole fleet by the same rule. A scalar function is planned and run anew for each terminal,
-- which took 2 ms of each; a function that returns a table is taken into the query that asks.

-- The newest version of each kind, and how far it is offered. is_over: to everybody. previous: what the others go by.
CREATE VIEW list_offer AS
    SELECT v.kind, v.version, r.rollout_no, r.stage, r.percent, r.state = 'RUNNING' AS is_running,
           r.rollout_no IS NULL OR r.state IN ('COMPLETE', 'SUPERSEDED') AS is_over, coalesce(r.previous, v.version) AS previous
      FROM (SELECT 'HOT' AS kind, (SELECT max(h.version) FROM hot_list_version h) AS version
            UNION ALL
            SELECT 'CITY', (SELECT max(l.version) FROM list_version l WHERE l.kind = 'CITY')
            UNION ALL
            SELECT 'PARAM', (SELECT max(l.version) FROM list_version l WHERE l.kind = 'PARAM')) v
      LEFT JOIN list_rollout r ON r.kind = v.kind AND r.version = v.version
     WHERE v.version IS NOT NULL;

-- The version that a terminal should hold; no row when there is none. Never an older one than it holds, unless it names one that does not exist.
CREATE FUNCTION list_due(wanted_kind text, wanted_terminal integer, wanted_slot smallint, held integer) RETURNS TABLE (version integer)
    LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN o.is_over THEN o.version
                WHEN o.is_running AND (o.percent = 100 OR wanted_slot < o.percent OR m.terminal_no IS NOT NULL) THEN o.version
                WHEN held BETWEEN o.previous AND o.version THEN held
                ELSE o.previous END
      FROM list_offer o
      LEFT JOIN list_rollout_member m ON m.rollout_no = o.rollout_no AND m.terminal_no = wanted_terminal AND m.stage <= o.stage
     WHERE o.kind = wanted_kind
$$;

CREATE OR REPLACE FUNCTION list_wanted(wanted_kind text, wanted_terminal integer, held integer) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT coalesce((SELECT d.version
                       FROM (SELECT (SELECT t.slot FROM terminal t WHERE t.terminal_no = wanted_terminal) AS slot) s
                      CROSS JOIN LATERAL list_due(wanted_kind, wanted_terminal, s.slot, held) d), 0)
$$;

-- The last parameter of a terminal's set. One that an unfinished roll-out has not reached goes by the set before.
CREATE FUNCTION parameters_due(wanted_terminal integer, wanted_category text, wanted_slot smallint) RETURNS TABLE (version bigint)
    LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT max(p.parameter_no) FROM terminal_parameter p
          WHERE p.category IS NULL AND p.terminal_no IS NULL AND p.parameter_no <= c.last_no),
        (SELECT max(p.parameter_no) FROM terminal_parameter p WHERE p.category = wanted_category AND p.parameter_no <= c.last_no),
        (SELECT max(p.parameter_no) FROM terminal_parameter p WHERE p.terminal_no = wanted_terminal AND p.parameter_no <= c.last_no))
      FROM (SELECT coalesce(max(v.through), 9223372036854775807) AS last_no
              FROM list_rollout r
              JOIN list_version v ON v.kind = 'PARAM' AND v.version = r.previous
              LEFT JOIN list_rollout_member m
                     ON m.rollout_no = r.rollout_no AND m.terminal_no = wanted_terminal AND m.stage <= r.stage
             WHERE r.kind = 'PARAM' AND r.state IN ('RUNNING', 'STOPPED')
               AND r.percent < 100 AND r.percent <= wanted_slot AND m.terminal_no IS NULL) c
$$;

CREATE OR REPLACE FUNCTION parameters_version(wanted_terminal integer, wanted_category text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT d.version
      FROM (SELECT (SELECT t.slot FROM terminal t WHERE t.terminal_no = wanted_terminal) AS slot) s
     CROSS JOIN LATERAL parameters_due(wanted_terminal, wanted_category, s.slot) d
$$;

-- Half a million cards become a version in one statement, and half of its time went into a foreign key that asked for each of them whether
-- that version exists. Versions are never taken away, so it is enough to ask once for a statement. The digits are counted without a
-- regular expression.
ALTER TABLE hot_list_entry
    DROP CONSTRAINT hot_list_entry_from_version_fkey,
    DROP CONSTRAINT hot_list_entry_until_version_fkey,
    DROP CONSTRAINT hot_list_entry_asn_check,
    ADD CONSTRAINT hot_list_entry_asn_check CHECK (length(asn) = 20 AND ltrim(asn, '0123456789') = '');

CREATE FUNCTION refuse_unknown_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM (SELECT DISTINCT from_version, until_version FROM changed) c
                WHERE NOT EXISTS (SELECT FROM hot_list_version v WHERE v.version = c.from_version)
                   OR c.until_version IS NOT NULL AND NOT EXISTS (SELECT FROM hot_list_version v WHERE v.version = c.until_version)) THEN
        RAISE foreign_key_violation USING MESSAGE = 'hot_list_entry: there is no such version';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER known_versions_added AFTER INSERT ON hot_list_entry REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_unknown_version();
CREATE TRIGGER known_versions_changed AFTER UPDATE ON hot_list_entry REFERENCING NEW TABLE AS changed
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_unknown_version();
