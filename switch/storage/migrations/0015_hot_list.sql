-- depends: 0014_terminal_parameters
-- The hot list 黑名單: purses that offline terminals refuse or lock. Whatever distributes it reads these tables; nothing here knows how.

-- A version is published whole, and never changes. entries: how many cards it lists; added, removed: against the version before.
CREATE TABLE hot_list_version (
    version      integer PRIMARY KEY CHECK (version BETWEEN 1 AND 99999999),
    published_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor        text NOT NULL,
    entries      integer NOT NULL CHECK (entries BETWEEN 0 AND 399960),  -- 9 999 blocks of 40
    added        integer NOT NULL CHECK (added >= 0),
    removed      integer NOT NULL CHECK (removed >= 0)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON hot_list_version
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Why a purse may be listed. A loss report is no reason: the offline account cannot be reported lost (Article 21).
CREATE DOMAIN hot_list_reason AS text
    CHECK (VALUE IN ('COUNTERFEIT', 'REPLACED', 'CANCELLED', 'KEY_COMPROMISED', 'WRONG_STOCK'));

-- A card is listed from one version until, not including, another; so every version, and every increment between two, can be read for ever.
CREATE TABLE hot_list_entry (
    asn           text NOT NULL CHECK (asn ~ '^[0-9]{20}$'),
    level         smallint NOT NULL CHECK (level IN (0, 1)),  -- 0 refuse, 1 lock the purse application
    reason        hot_list_reason NOT NULL,
    from_version  integer NOT NULL REFERENCES hot_list_version,
    until_version integer REFERENCES hot_list_version CHECK (until_version > from_version),
    PRIMARY KEY (asn, from_version)
);
CREATE UNIQUE INDEX ON hot_list_entry (asn) WHERE until_version IS NULL;

-- What the next version will change. level NULL: the card comes off the list.
CREATE TABLE hot_list_draft (
    asn      text PRIMARY KEY CHECK (asn ~ '^[0-9]{20}$'),
    level    smallint CHECK (level IN (0, 1)),
    reason   hot_list_reason,
    actor    text NOT NULL,
    drawn_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CHECK ((level IS NULL) = (reason IS NULL))
);

-- A card as it is listed in one version.
CREATE FUNCTION hot_list_at(wanted integer) RETURNS TABLE (asn text, level smallint) LANGUAGE sql STABLE AS $$
    SELECT e.asn, e.level FROM hot_list_entry e
     WHERE e.from_version <= wanted AND (e.until_version IS NULL OR e.until_version > wanted)
$$;

-- The download that a terminal is at: what it asked for, and what it is given, block by block, whatever is published meanwhile.
ALTER TABLE terminal_status
    ADD COLUMN hot_list_asked_mode text CHECK (hot_list_asked_mode IN ('F', 'I')),
    ADD COLUMN hot_list_asked_held integer,
    ADD COLUMN hot_list_base       integer,  -- NULL: the full list
    ADD COLUMN hot_list_offered    integer;
