-- depends: 0021_clearing_legs
-- Terminals' lists at the size of a city: versions of every kind of list, how far each has been rolled out, who has it, and what was signed.

-- One of a hundred parts of all terminals, which a terminal works out by itself: CRC-16/CCITT-FALSE of its id, modulo 100.
CREATE FUNCTION list_slot(terminal_id text) RETURNS smallint LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
DECLARE
    raw bytea := convert_to(terminal_id, 'UTF8');
    crc integer := 65535;
BEGIN
    FOR place IN 0 .. length(raw) - 1 LOOP
        crc := crc # (get_byte(raw, place) << 8);
        FOR bit IN 1 .. 8 LOOP
            crc := ((crc << 1) # CASE WHEN crc & 32768 <> 0 THEN 4129 ELSE 0 END) & 65535;
        END LOOP;
    END LOOP;
    RETURN crc % 100;
END $$;
ALTER TABLE terminal ADD COLUMN slot smallint GENERATED ALWAYS AS (list_slot(terminal_id)) STORED;

CREATE DOMAIN list_kind AS text CHECK (VALUE IN ('HOT', 'CITY', 'PARAM'));

-- By topic a list may be longer than the 9 999 blocks of forty that 0800/390 can number.
ALTER TABLE hot_list_version
    DROP CONSTRAINT hot_list_version_entries_check,
    ADD CONSTRAINT hot_list_version_entries_check CHECK (entries BETWEEN 0 AND 1000000);

-- Versions of the other kinds. through: the last row of terminal_parameter that the set holds.
CREATE TABLE list_version (
    kind         list_kind NOT NULL CHECK (kind <> 'HOT'),
    version      integer NOT NULL CHECK (version BETWEEN 1 AND 99999999),
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text NOT NULL,
    entries      integer NOT NULL CHECK (entries BETWEEN 0 AND 1000000),
    through      bigint CHECK ((through IS NOT NULL) = (kind = 'PARAM')),
    PRIMARY KEY (kind, version)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON list_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

CREATE VIEW list_versions AS
    SELECT 'HOT' AS kind, version, published_at, actor, entries FROM hot_list_version
    UNION ALL
    SELECT kind::text, version, published_at, actor, entries FROM list_version;

-- Whose cards a terminal takes 白名單. what: I an issuer (16 hex digits), C a city (4 digits). usage: 0 our own, 1 interoperable.
CREATE TABLE city_list_entry (
    what          text NOT NULL CHECK (what IN ('I', 'C')),
    value         text NOT NULL CHECK (value ~ CASE what WHEN 'I' THEN '^[0-9A-F]{16}$' ELSE '^[0-9]{4}$' END),
    usage         smallint NOT NULL CHECK (usage IN (0, 1)),
    from_version  integer NOT NULL,
    until_version integer CHECK (until_version > from_version),
    PRIMARY KEY (what, value, from_version)
);
CREATE UNIQUE INDEX ON city_list_entry (what, value) WHERE until_version IS NULL;

-- Terminals that a stage can name. Whom a roll-out means by it is written down when it begins.
CREATE TABLE terminal_group (
    group_name  text NOT NULL CHECK (group_name ~ '^[a-z][a-z0-9-]{0,31}$'),
    terminal_no integer NOT NULL REFERENCES terminal,
    PRIMARY KEY (group_name, terminal_no)
);

-- How far a version has come. stages: percentages and names of groups, each on top of those before; stage: how many of them count now;
-- percent: the largest percentage among these. A version without a row was for everybody from its first moment.
-- RUNNING: those it reaches are offered it. STOPPED: nobody further is. COMPLETE: everybody is, and enough have it. SUPERSEDED: a newer
-- version came first. previous: what the others go by.
CREATE TABLE list_rollout (
    rollout_no   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind         list_kind NOT NULL,
    version      integer NOT NULL,
    previous     integer NOT NULL CHECK (previous < version),
    stages       text[] NOT NULL CHECK (cardinality(stages) BETWEEN 1 AND 20),
    stage        smallint NOT NULL DEFAULT 1 CHECK (stage BETWEEN 1 AND cardinality(stages)),
    percent      smallint NOT NULL CHECK (percent BETWEEN 0 AND 100),
    state        text NOT NULL DEFAULT 'RUNNING' CHECK (state IN ('RUNNING', 'STOPPED', 'COMPLETE', 'SUPERSEDED')),
    coverage_pct smallint NOT NULL CHECK (coverage_pct BETWEEN 1 AND 100),
    soak_s       integer NOT NULL CHECK (soak_s >= 0),
    started_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    staged_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (kind, version)
);
CREATE UNIQUE INDEX ON list_rollout (kind) WHERE state IN ('RUNNING', 'STOPPED');

CREATE TABLE list_rollout_member (
    rollout_no  integer NOT NULL REFERENCES list_rollout,
    terminal_no integer NOT NULL REFERENCES terminal,
    stage       smallint NOT NULL CHECK (stage >= 1),  -- the first that names it
    PRIMARY KEY (rollout_no, terminal_no)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON list_rollout_member
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Who did what to a roll-out and when; actor `switch`: a rule did.
CREATE TABLE list_event (
    event_no   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor      text NOT NULL,
    rollout_no integer NOT NULL REFERENCES list_rollout,
    action     text NOT NULL CHECK (action IN ('BEGIN', 'STAGE', 'STOP', 'RESUME', 'COMPLETE', 'SUPERSEDE')),
    stage      smallint NOT NULL,
    detail     text NOT NULL DEFAULT ''
);
CREATE INDEX ON list_event (rollout_no, event_no);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON list_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What a terminal has said about a version that is rolled out. generation: of its keys when it first fetched it, by which later sign-ons are counted.
CREATE TABLE list_receipt (
    rollout_no  integer NOT NULL REFERENCES list_rollout,
    terminal_no integer NOT NULL REFERENCES terminal,
    fetched_at  timestamptz,
    generation  integer,
    held_at     timestamptz,
    refused_at  timestamptz,
    refusal     text,
    PRIMARY KEY (rollout_no, terminal_no),
    CHECK (num_nonnulls(fetched_at, held_at, refused_at) > 0),
    CHECK ((fetched_at IS NULL) = (generation IS NULL)),
    CHECK ((refused_at IS NULL) = (refusal IS NULL))
);

-- A version cut into blocks for topics: base 0 is the full list. digest: SM3 over the blocks' SM3s; content: SM3 over the whole list, in
-- the row of the full one. withdrawn_at: its topics were emptied.
CREATE TABLE list_form (
    kind    list_kind NOT NULL,
    version integer NOT NULL CHECK (version >= 0),
    base    integer NOT NULL CHECK (base = 0 OR base BETWEEN 1 AND version - 1),
    blocks  integer NOT NULL CHECK (blocks BETWEEN 1 AND 65535),
    entries integer NOT NULL CHECK (entries >= 0),
    digest  bytea NOT NULL CHECK (length(digest) = 32),
    content bytea CHECK (length(content) = 32),
    made_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    withdrawn_at timestamptz,
    PRIMARY KEY (kind, version, base),
    CHECK ((content IS NOT NULL) = (base = 0))
);

-- Every manifest that was signed, as it was published. version for those in a slot below percent and those named, previous for the others.
CREATE TABLE list_manifest (
    kind     list_kind NOT NULL,
    serial   integer NOT NULL CHECK (serial >= 1),
    made_at  timestamptz NOT NULL,
    version  integer NOT NULL,
    previous integer,  -- NULL: one version for everybody
    percent  smallint NOT NULL CHECK (percent BETWEEN 0 AND 100),
    named    integer NOT NULL,
    payload  bytea NOT NULL,
    PRIMARY KEY (kind, serial)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON list_manifest
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- When a terminal last sent anything with a good MAC, and offline records. Written every few seconds, so a crash may lose the last of it.
-- record_at: the time on the last record of that upload, by the terminal's clock, Asia/Shanghai.
CREATE TABLE terminal_seen (
    terminal_no integer PRIMARY KEY REFERENCES terminal,
    seen_at     timestamptz NOT NULL,
    uploaded_at timestamptz,
    record_at   timestamp
);

-- Whether a roll-out has come as far as a terminal.
CREATE FUNCTION list_reaches(wanted_rollout integer, wanted_stage smallint, wanted_percent smallint, wanted_terminal integer)
    RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT wanted_percent = 100
           OR EXISTS (SELECT FROM terminal t WHERE t.terminal_no = wanted_terminal AND t.slot < wanted_percent)
           OR EXISTS (SELECT FROM list_rollout_member m
                       WHERE m.rollout_no = wanted_rollout AND m.terminal_no = wanted_terminal AND m.stage <= wanted_stage)
$$;

-- The version that a terminal should hold; 0 when there is none. Never an older one than it holds, unless it names one that does not exist.
CREATE FUNCTION list_wanted(wanted_kind text, wanted_terminal integer, held integer) RETURNS integer LANGUAGE sql STABLE AS $$
    SELECT coalesce((
        SELECT CASE WHEN r.rollout_no IS NULL OR r.state IN ('COMPLETE', 'SUPERSEDED') THEN v.version
                    WHEN r.state = 'RUNNING' AND list_reaches(r.rollout_no, r.stage, r.percent, wanted_terminal) THEN v.version
                    WHEN held BETWEEN r.previous AND v.version THEN held
                    ELSE r.previous END
          FROM list_versions v
          LEFT JOIN list_rollout r ON r.kind = v.kind AND r.version = v.version
         WHERE v.kind = wanted_kind
         ORDER BY v.version DESC
         LIMIT 1), 0)
$$;

-- The last parameter that counts for a terminal which an unfinished roll-out has not reached; NULL: all of them.
CREATE FUNCTION parameters_cap(wanted_terminal integer) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT v.through
      FROM list_rollout r
      JOIN list_version v ON v.kind = 'PARAM' AND v.version = r.previous
     WHERE r.kind = 'PARAM' AND r.state IN ('RUNNING', 'STOPPED')
       AND NOT list_reaches(r.rollout_no, r.stage, r.percent, wanted_terminal)
$$;

CREATE OR REPLACE FUNCTION parameters_version(wanted_terminal integer, wanted_category text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT max(parameter_no) FROM terminal_parameter WHERE category IS NULL AND terminal_no IS NULL AND parameter_no <= c.last_no),
        (SELECT max(parameter_no) FROM terminal_parameter WHERE category = wanted_category AND parameter_no <= c.last_no),
        (SELECT max(parameter_no) FROM terminal_parameter WHERE terminal_no = wanted_terminal AND parameter_no <= c.last_no))
      FROM (SELECT coalesce(parameters_cap(wanted_terminal), 9223372036854775807) AS last_no) c
$$;

-- The values in force up to a row of terminal_parameter, and the scope that each comes from.
CREATE FUNCTION parameters_up_to(wanted_terminal integer, wanted_category text, last_no bigint)
    RETURNS TABLE (tag text, value bigint, scope text) LANGUAGE sql STABLE AS $$
    WITH latest AS (
        SELECT DISTINCT ON (a.tag, a.width) a.tag, a.width, a.value
          FROM (SELECT p.tag, 3 AS width, p.value, p.parameter_no FROM terminal_parameter p
                 WHERE p.category IS NULL AND p.terminal_no IS NULL
                UNION ALL
                SELECT p.tag, 2, p.value, p.parameter_no FROM terminal_parameter p WHERE p.category = wanted_category
                UNION ALL
                SELECT p.tag, 1, p.value, p.parameter_no FROM terminal_parameter p WHERE p.terminal_no = wanted_terminal) a
         WHERE a.parameter_no <= last_no
         ORDER BY a.tag, a.width, a.parameter_no DESC)
    SELECT DISTINCT ON (l.tag) l.tag, l.value, CASE l.width WHEN 1 THEN 'terminal' WHEN 2 THEN 'category' ELSE 'all' END
      FROM latest l
     WHERE l.value IS NOT NULL
     ORDER BY l.tag, l.width
$$;

-- What a version of the parameter set says: the last value of each scope, where it has one.
CREATE FUNCTION parameter_set(last_no bigint) RETURNS TABLE (category text, terminal_no integer, tag text, value bigint) LANGUAGE sql STABLE AS $$
    SELECT l.category, l.terminal_no, l.tag, l.value
      FROM (SELECT DISTINCT ON (p.category, p.terminal_no, p.tag) p.* FROM terminal_parameter p
             WHERE p.parameter_no <= last_no
             ORDER BY p.category, p.terminal_no, p.tag, p.parameter_no DESC) l
     WHERE l.value IS NOT NULL
$$;
INSERT INTO list_version (kind, version, actor, entries, through)
SELECT 'PARAM', 1, 'release', (SELECT count(*) FROM parameter_set(max(p.parameter_no))), max(p.parameter_no) FROM terminal_parameter p;

CREATE OR REPLACE FUNCTION parameters_in_force(wanted_terminal integer, wanted_category text)
    RETURNS TABLE (tag text, value bigint, scope text) LANGUAGE sql STABLE AS $$
    SELECT * FROM parameters_up_to(wanted_terminal, wanted_category, coalesce(parameters_cap(wanted_terminal), 9223372036854775807))
$$;

-- The entries of a version as they go out: a key, and what the list says about it.
CREATE FUNCTION list_at(wanted_kind text, wanted_version integer) RETURNS TABLE (key bytea, said bytea) LANGUAGE sql STABLE AS $$
    SELECT decode(h.asn, 'hex'), set_byte('\x00'::bytea, 0, h.level) FROM hot_list_at(wanted_version) h WHERE wanted_kind = 'HOT'
    UNION ALL
    SELECT convert_to(c.what, 'UTF8') || decode(rpad(c.value, 16, '0'), 'hex'), set_byte('\x00'::bytea, 0, c.usage)
      FROM city_list_entry c
     WHERE wanted_kind = 'CITY' AND c.from_version <= wanted_version AND (c.until_version IS NULL OR c.until_version > wanted_version)
    UNION ALL
    SELECT convert_to(CASE WHEN p.category IS NOT NULL THEN 'C' || rpad(p.category, 8)
                           WHEN p.terminal_no IS NOT NULL THEN 'T' || t.terminal_id ELSE rpad('*', 9) END || p.tag, 'UTF8'),
           convert_to(lpad(p.value::text, 8, '0'), 'UTF8')
      FROM list_version v
     CROSS JOIN LATERAL parameter_set(v.through) p
      LEFT JOIN terminal t ON t.terminal_no = p.terminal_no
     WHERE wanted_kind = 'PARAM' AND v.kind = 'PARAM' AND v.version = wanted_version
$$;

-- What leads from one version to another. said NULL: the key comes off. Of the hot list only cards are looked at that changed in between.
CREATE FUNCTION list_increment(wanted_kind text, base integer, wanted_version integer) RETURNS TABLE (key bytea, said bytea)
    LANGUAGE sql STABLE AS $$
    SELECT decode(c.asn, 'hex'), set_byte('\x00'::bytea, 0, n.level)
      FROM (SELECT e.asn FROM hot_list_entry e
             WHERE wanted_kind = 'HOT' AND (e.from_version > base AND e.from_version <= wanted_version
                                            OR e.until_version > base AND e.until_version <= wanted_version)
             GROUP BY e.asn) c
      LEFT JOIN hot_list_entry o ON o.asn = c.asn AND o.from_version <= base AND (o.until_version IS NULL OR o.until_version > base)
      LEFT JOIN hot_list_entry n
             ON n.asn = c.asn AND n.from_version <= wanted_version AND (n.until_version IS NULL OR n.until_version > wanted_version)
     WHERE o.level IS DISTINCT FROM n.level
    UNION ALL
    SELECT coalesce(n.key, o.key), n.said
      FROM (SELECT * FROM list_at(wanted_kind, base) WHERE wanted_kind <> 'HOT') o
      FULL JOIN (SELECT * FROM list_at(wanted_kind, wanted_version) WHERE wanted_kind <> 'HOT') n ON n.key = o.key
     WHERE o.said IS DISTINCT FROM n.said
$$;
