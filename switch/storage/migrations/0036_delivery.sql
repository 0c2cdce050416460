-- depends: 0031_numbers_of_batches
-- Files on their way: signatures, files sent again under the next sequence number, and what each partner was sent and has answered.

-- A signature is not a function of the file, so it is kept: whoever writes the file again gets the same one. signature: DER over the SM3 of the file.
CREATE TABLE file_signature (
    name       text PRIMARY KEY CHECK (length(name) = 29),
    sm3        bytea NOT NULL CHECK (length(sm3) = 32),
    key_name   text NOT NULL,
    public_key bytea NOT NULL CHECK (length(public_key) = 65),
    signature  bytea NOT NULL CHECK (length(signature) BETWEEN 8 AND 72),
    signed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON file_signature
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- A file sent again: the lines of the original under the next sequence number. It lies in the folder of the original's date (of_date), and is an
-- act of the open day (business_date). The digest is known before the file is written, so a row is never changed.
CREATE TABLE clearing_resend (
    resend_no     integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    business_date date NOT NULL REFERENCES business_day,
    name          text NOT NULL UNIQUE CHECK (length(name) = 29),
    of_date       date NOT NULL,
    original      text NOT NULL,
    reason        text NOT NULL CHECK (reason <> ''),
    actor         text NOT NULL,
    made_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    sm3           bytea NOT NULL CHECK (length(sm3) = 32),
    size_bytes    bigint NOT NULL CHECK (size_bytes > 0),
    FOREIGN KEY (of_date, original) REFERENCES clearing_file (business_date, name),
    CHECK (left(name, 26) = left(original, 26) AND name > original)
);
CREATE INDEX ON clearing_resend (of_date);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON clearing_resend
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed BEFORE INSERT ON clearing_resend FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- The line to a partner: failures in a row, and when it is tried again.
CREATE TABLE delivery_partner (
    partner     text PRIMARY KEY CHECK (partner ~ '^[a-z0-9-]{1,32}$'),
    failures    integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    last_error  text NOT NULL DEFAULT '',
    tried_at    timestamptz,
    good_at     timestamptz,
    next_try_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Days whose files have been put into a partner's queue: each once, whatever the settings say later.
CREATE TABLE delivery_day (
    partner       text NOT NULL CHECK (partner ~ '^[a-z0-9-]{1,32}$'),
    business_date date NOT NULL REFERENCES business_day,
    files         integer NOT NULL,
    queued_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partner, business_date)
);

-- A file for a partner. number: the order in which he gets them, without gaps. marking: NAME is there whole, and NAME.ok may be: a file that has
-- vanished since was taken. attempts: since it was queued or an operator had it tried again.
CREATE TABLE delivery (
    partner     text NOT NULL CHECK (partner ~ '^[a-z0-9-]{1,32}$'),
    number      integer NOT NULL CHECK (number >= 1),
    name        text NOT NULL CHECK (length(name) = 29),
    of_date     date NOT NULL,
    sm3         bytea NOT NULL CHECK (length(sm3) = 32),
    size_bytes  bigint NOT NULL,
    state       text NOT NULL DEFAULT 'WAITING' CHECK (state IN ('WAITING', 'SENT', 'ACKNOWLEDGED', 'REJECTED')),
    queued_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts    integer NOT NULL DEFAULT 0 CHECK (attempts >= 0),
    marking     boolean NOT NULL DEFAULT false,
    last_error  text NOT NULL DEFAULT '',
    sent_at     timestamptz,
    ended_at    timestamptz,
    reason      text NOT NULL DEFAULT '',
    PRIMARY KEY (partner, number),
    UNIQUE (partner, name),
    CHECK ((state = 'WAITING') = (sent_at IS NULL)),
    CHECK ((state IN ('ACKNOWLEDGED', 'REJECTED')) = (ended_at IS NOT NULL))
);
CREATE INDEX ON delivery (partner, number) WHERE state IN ('WAITING', 'SENT');

-- Receipts that were read. The same file read again (it could not be removed) is no second receipt; another one under its name is.
CREATE TABLE delivery_receipt (
    partner    text NOT NULL,
    file       text NOT NULL,
    sm3        bytea NOT NULL CHECK (length(sm3) = 32),
    written_at bigint NOT NULL,  -- the partner's clock, seconds
    outcome    text NOT NULL,
    read_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (partner, file, sm3, written_at)
);

-- Files that a partner left for us. answered_at: our .ack or .rej lies there.
CREATE TABLE delivery_inbox (
    partner     text NOT NULL,
    name        text NOT NULL CHECK (length(name) = 29),
    sm3         bytea NOT NULL CHECK (length(sm3) = 32),
    size_bytes  bigint NOT NULL,
    state       text NOT NULL DEFAULT 'FETCHED' CHECK (state IN ('FETCHED', 'TAKEN', 'KEPT', 'REFUSED')),
    said        text NOT NULL DEFAULT '',
    fetched_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at    timestamptz,
    answered_at timestamptz,
    PRIMARY KEY (partner, name, sm3),
    CHECK ((state = 'FETCHED') = (ended_at IS NULL))
);

-- What people should look at; each once. name: the file, or what else it is about.
CREATE TABLE delivery_alarm (
    alarm_no  integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner   text NOT NULL,
    kind      text NOT NULL CHECK (kind IN ('HOST_KEY', 'REJECTED', 'ACK_TWICE', 'ACK_CONTRADICTS', 'ACK_UNKNOWN', 'ACK_DIGEST',
                                            'GIVEN_UP', 'BEHIND', 'GAP', 'DUPLICATE', 'BAD_MARK')),
    name      text NOT NULL,
    detail    text NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (partner, kind, name)
);

-- Hot lists that a day's files carry: BF where an acquirer had none before (base NULL), else BI from the version of his last one.
CREATE TABLE clearing_hot_list (
    business_date date NOT NULL REFERENCES clearing_day,
    acquirer_id   text NOT NULL CHECK (acquirer_id ~ '^[0-9]{8}$'),
    version       integer NOT NULL REFERENCES hot_list_version,
    base          integer REFERENCES hot_list_version CHECK (base < version),
    PRIMARY KEY (acquirer_id, business_date)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_hot_list
    FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Lines of such a file: V and the base version, what comes off, what comes on or changes its level. Without a base: the whole list.
CREATE FUNCTION clearing_hot_list_lines(base integer, wanted integer)
    RETURNS TABLE (part integer, operation text, asn text, level smallint, effective_date date) LANGUAGE sql STABLE AS $$
    SELECT 0, 'V', lpad(base::text, 20, '0'), 0::smallint, (v.published_at AT TIME ZONE INTERVAL '8 hours')::date
      FROM hot_list_version v WHERE v.version = wanted AND base IS NOT NULL
    UNION ALL
    SELECT 1, 'D', o.asn, 0::smallint, (v.published_at AT TIME ZONE INTERVAL '8 hours')::date
      FROM hot_list_at(base) o JOIN hot_list_version v ON v.version = wanted
     WHERE NOT EXISTS (SELECT FROM hot_list_at(wanted) n WHERE n.asn = o.asn)
    UNION ALL
    SELECT 2, 'A', n.asn, n.level, (v.published_at AT TIME ZONE INTERVAL '8 hours')::date
      FROM hot_list_entry n
      JOIN hot_list_version v ON v.version = n.from_version
      LEFT JOIN hot_list_at(base) o ON o.asn = n.asn
     WHERE n.from_version <= wanted AND (n.until_version IS NULL OR n.until_version > wanted) AND o.level IS DISTINCT FROM n.level
$$;
