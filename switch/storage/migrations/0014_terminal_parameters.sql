-- depends: 0013_limits
-- What terminals are told to work by, and what they say they work by.

-- Parameters by the tags of field 62. Rows are added, never changed: the last one of a scope counts, and all of them are the record of who
-- set what and when. Scopes, the narrowest wins: terminal, merchant category, neither. value NULL: the wider scope counts again.
-- Tags 27 and 29 are no rows: the cut-off is that of the business day, the records per upload are what the switch takes.
CREATE TABLE terminal_parameter (
    parameter_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    set_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text NOT NULL,
    tag          text NOT NULL CHECK (tag IN ('12', '13', '26', '28', '30')),
    category     text CHECK (category ~ '^[0-9]{4}$'),
    terminal_no  integer REFERENCES terminal,
    value        bigint CHECK (value >= 0),
    CHECK (category IS NULL OR terminal_no IS NULL),
    CHECK (value IS NOT NULL OR category IS NOT NULL OR terminal_no IS NOT NULL)
);
CREATE INDEX ON terminal_parameter (parameter_no) WHERE category IS NULL AND terminal_no IS NULL;
CREATE INDEX ON terminal_parameter (category, parameter_no) WHERE category IS NOT NULL;
CREATE INDEX ON terminal_parameter (terminal_no, parameter_no) WHERE terminal_no IS NOT NULL;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON terminal_parameter
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

INSERT INTO terminal_parameter (actor, tag, value)
VALUES ('release', '12', 60), ('release', '13', 3), ('release', '26', 100000), ('release', '28', 100000), ('release', '30', 7);

-- The number of the last row that concerns a terminal: whoever holds the values of this version is up to date.
CREATE FUNCTION parameters_version(wanted_terminal integer, wanted_category text) RETURNS bigint LANGUAGE sql STABLE AS $$
    SELECT greatest(
        (SELECT max(parameter_no) FROM terminal_parameter WHERE category IS NULL AND terminal_no IS NULL),
        (SELECT max(parameter_no) FROM terminal_parameter WHERE category = wanted_category),
        (SELECT max(parameter_no) FROM terminal_parameter WHERE terminal_no = wanted_terminal))
$$;

-- The values in force for a terminal (or, without one, for a category or for all), and the scope that each comes from.
CREATE FUNCTION parameters_in_force(wanted_terminal integer, wanted_category text)
    RETURNS TABLE (tag text, value bigint, scope text) LANGUAGE sql STABLE AS $$
    WITH latest AS (
        SELECT DISTINCT ON (a.tag, a.width) a.tag, a.width, a.value
          FROM (SELECT p.tag, 3 AS width, p.value, p.parameter_no FROM terminal_parameter p
                 WHERE p.category IS NULL AND p.terminal_no IS NULL
                UNION ALL
                SELECT p.tag, 2, p.value, p.parameter_no FROM terminal_parameter p WHERE p.category = wanted_category
                UNION ALL
                SELECT p.tag, 1, p.value, p.parameter_no FROM terminal_parameter p WHERE p.terminal_no = wanted_terminal) a
         ORDER BY a.tag, a.width, a.parameter_no DESC)
    SELECT DISTINCT ON (l.tag) l.tag, l.value, CASE l.width WHEN 1 THEN 'terminal' WHEN 2 THEN 'category' ELSE 'all' END
      FROM latest l
     WHERE l.value IS NOT NULL
     ORDER BY l.tag, l.width
$$;

-- What a terminal has fetched and reported.
CREATE TABLE terminal_status (
    terminal_no        integer PRIMARY KEY REFERENCES terminal,
    seen_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    parameters_offered bigint,   -- version sent last, until the terminal says that it has it
    parameters_held    bigint,   -- version it has said to hold; NULL: none, or it reported other values
    hot_list_held      integer,  -- NULL: never said
    reported_at        timestamptz,
    reported           jsonb     -- tag to value, as it came in the last status upload
);
