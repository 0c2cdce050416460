-- depends: 0030_bookings
-- Reconciliation 對賬: what banks and cities say in their files about the items they owe us, compared with our own books.

-- A partner's CM file about a business date, taken (00) or refused (status as in NS). effect_fen: what its lines come to, what goes back as
-- negative and what was declined as nothing. Rows are written when a file has ended, and never change.
CREATE TABLE partner_file (
    file_no       integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name          text NOT NULL CHECK (name ~ '^CM[0-9]{27}$'),
    partner_id    text NOT NULL CHECK (partner_id ~ '^[0-9]{8}$'),
    business_date date NOT NULL,
    sequence      smallint NOT NULL CHECK (sequence BETWEEN 0 AND 999),
    sm3           bytea NOT NULL CHECK (length(sm3) = 32),
    line_count    integer NOT NULL CHECK (line_count BETWEEN 0 AND 99999999),
    total_fen     bigint NOT NULL CHECK (total_fen >= 0),
    effect_fen    bigint NOT NULL CHECK (abs(effect_fen) <= total_fen),
    status        text NOT NULL CHECK (status IN ('00', '01', '02', '03', '04')),
    reason        text NOT NULL DEFAULT '',
    actor         text NOT NULL,
    taken_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    UNIQUE (name, sm3, status)
);
CREATE UNIQUE INDEX ON partner_file (name) WHERE status = '00';
CREATE INDEX ON partner_file (partner_id, business_date);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON partner_file
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Its lines, as far as a comparison asks for them: a table for each file, outside the write-ahead log, attached when the whole file has been
-- checked. A server that crashes empties it; the file is then taken again. (k1, k2): of an online message field 7 and field 11 as one number, and 0; of an offline record
-- its card_key, and 2^48 + ATC * 2^32 + PSAM serial. A reversal has the key of what it undoes.
CREATE TABLE partner_line (
    k1         bigint NOT NULL,
    k2         bigint NOT NULL,
    amount_fen bigint NOT NULL,
    effect_fen bigint NOT NULL,
    line_no    integer NOT NULL,
    file_no    integer NOT NULL,
    mti        smallint NOT NULL,
    pan        character(19) NOT NULL,
    rrn        character(12) NOT NULL
) PARTITION BY LIST (file_no);

CREATE FUNCTION make_partner_lines(file integer) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE UNLOGGED TABLE partner_line_%s (LIKE partner_line INCLUDING DEFAULTS, CHECK (file_no = %s))', file, file);
    EXECUTE format('ALTER TABLE partner_line_%s ALTER COLUMN file_no SET DEFAULT %s', file, file);
END $$;

-- One comparison of a day's items with a file. carried_run: that of the day before whose open ends it took over. The newest of a partner and
-- date is the one that counts; the others stay as they were.
CREATE TABLE reconcile_run (
    run_no        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id    text NOT NULL,
    business_date date NOT NULL REFERENCES business_day,
    file_no       integer NOT NULL REFERENCES partner_file,
    carried_run   integer REFERENCES reconcile_run,
    tolerance_fen bigint NOT NULL CHECK (tolerance_fen >= 0),
    roll_days     smallint NOT NULL CHECK (roll_days IN (0, 1)),
    compared_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor         text NOT NULL,
    ours_count    bigint NOT NULL,
    ours_fen      bigint NOT NULL,
    theirs_count  bigint NOT NULL,
    theirs_fen    bigint NOT NULL
);
CREATE INDEX ON reconcile_run (partner_id, business_date);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reconcile_run
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What became of every item of both sides, in sums. match: both say the same. undone: no money stands on either side. shifted: together with
-- what the day before had left open it is even. tolerated: amounts differ, within the partner's tolerance. amount: they differ. status: money stands with one of the two,
-- or card or reference differ. short 短款: we have it alone. long 長款: the partner has it alone. duplicate: a line of the partner that says again what another says.
CREATE TABLE reconcile_total (
    run_no       integer NOT NULL REFERENCES reconcile_run,
    outcome      text NOT NULL CHECK (outcome IN ('match', 'undone', 'shifted', 'tolerated', 'amount', 'status', 'short', 'long', 'duplicate')),
    ours_count   bigint NOT NULL,
    ours_fen     bigint NOT NULL,
    theirs_count bigint NOT NULL,
    theirs_fen   bigint NOT NULL,
    PRIMARY KEY (run_no, outcome)
);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reconcile_total
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Every item that is not simply even, by what makes it so: the same finding of a later comparison is the same row. Outcome load: both say the same, and the
-- load that the partner paid for waits for its card; counted under match. ours_fen, theirs_fen: what stands with each. entry_no: the leg or
-- verdict of ours, where there is one; load_no: the load it pays for. terminal: what the terminal's batch says of it. line_no: in the file of first_run.
-- state: CARRIED, its other side may come with the next day's file; OPEN; SHIFTED, it came; TOLERATED; GONE, the newest comparison does not find it any
-- more; by people SUSPENSE, its money came and waits in 2201; CLOSED. case_no: of a dispute that has taken it over.
CREATE TABLE reconcile_difference (
    difference_no bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    partner_id    text NOT NULL,
    business_date date NOT NULL REFERENCES business_day,
    k1            bigint NOT NULL,
    k2            bigint NOT NULL,
    outcome       text NOT NULL CHECK (outcome IN ('tolerated', 'amount', 'status', 'short', 'long', 'duplicate', 'load')),
    differs       text NOT NULL,
    ours_count    integer NOT NULL,
    ours_fen      bigint NOT NULL,
    theirs_count  integer NOT NULL,
    theirs_fen    bigint NOT NULL,
    shard         smallint,
    entry_no      bigint,
    load_no       bigint,
    line_no       integer,
    card          text NOT NULL,  -- masked
    rrn           text NOT NULL,
    terminal      text NOT NULL,
    first_run     integer NOT NULL REFERENCES reconcile_run,
    state         text NOT NULL CHECK (state IN ('CARRIED', 'OPEN', 'SHIFTED', 'TOLERATED', 'GONE', 'SUSPENSE', 'CLOSED')),
    case_no       text CHECK (case_no ~ '^[0-9A-Za-z-]{1,16}$'),
    UNIQUE (partner_id, business_date, k1, k2, outcome, differs, ours_count, ours_fen, theirs_count, theirs_fen)
);
CREATE INDEX ON reconcile_difference (partner_id, business_date) WHERE state IN ('CARRIED', 'OPEN', 'SUSPENSE');
CREATE INDEX ON reconcile_difference (load_no) WHERE load_no IS NOT NULL;

-- Which comparison found what.
CREATE TABLE reconcile_finding (
    run_no        integer NOT NULL REFERENCES reconcile_run,
    difference_no bigint NOT NULL REFERENCES reconcile_difference,
    PRIMARY KEY (run_no, difference_no)
);
CREATE INDEX ON reconcile_finding (difference_no);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reconcile_finding
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- What two people decided about a difference. action: accept, suspense, sent-back, settled, loaded, returned, case. Money that it moved is in booking under
-- the source `difference N`, or in the moves of the load.
CREATE TABLE reconcile_step (
    step_no       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    difference_no bigint NOT NULL REFERENCES reconcile_difference,
    decided_at    timestamptz NOT NULL,
    business_date date NOT NULL REFERENCES business_day,
    action        text NOT NULL CHECK (action IN ('accept', 'suspense', 'sent-back', 'settled', 'loaded', 'returned', 'case')),
    from_state    text NOT NULL,
    to_state      text NOT NULL,
    actor         text NOT NULL CHECK (actor <> ''),
    checker       text NOT NULL CHECK (checker <> '' AND lower(checker) <> lower(actor)),
    reason        text NOT NULL CHECK (reason <> '')
);
CREATE INDEX ON reconcile_step (difference_no);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON reconcile_step FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER closed BEFORE INSERT ON reconcile_step FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- Legs and messages of a day are found by their instants.
CREATE INDEX host_leg_by_end ON host_leg USING brin (ended_at) WITH (pages_per_range = 32);
CREATE INDEX host_outbox_by_birth ON host_outbox USING brin (created_at) WITH (pages_per_range = 32);

-- What a partner owes us of one day, each movement a row: what its host approved or we approved for it (fen 0 where nothing stands: declined, unknown, not
-- sent), what it was told to undo or to give back, and other cities' offline records. A function with a plain body, so that the planner sees into it.
CREATE FUNCTION partner_item(partner bigint, day date, day_begins timestamptz, day_ends timestamptz)
    RETURNS TABLE (k1 bigint, k2 bigint, fen bigint, pan character(19), rrn character(12), shard smallint, entry_no bigint)
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT l.transmitted::bigint * 1000000 + l.trace, 0::bigint, CASE WHEN l.state IN (1, 5) THEN l.amount_fen ELSE 0 END,
           l.pan::character(19), l.rrn::character(12), l.shard, l.leg_no
      FROM host_leg l
     WHERE l.ended_at >= day_begins AND l.ended_at < day_ends AND l.debit_owner = partner AND l.debit_code <> 1103 AND l.service IN (1, 5)
    UNION ALL
    SELECT l.transmitted::bigint * 1000000 + l.trace, 0::bigint, -l.amount_fen, l.pan::character(19), l.rrn::character(12), l.shard, l.leg_no
      FROM host_outbox o JOIN host_leg l USING (shard, leg_no)
     WHERE o.created_at >= day_begins AND o.created_at < day_ends AND o.step = 5 AND l.state IN (1, 5)
       AND l.debit_owner = partner AND l.debit_code <> 1103
    UNION ALL
    SELECT o.transmitted::bigint * 1000000 + o.trace, 0::bigint, -o.amount_fen, l.pan::character(19), o.rrn::character(12), l.shard, l.leg_no
      FROM host_outbox o JOIN host_leg l USING (shard, leg_no)
     WHERE o.created_at >= day_begins AND o.created_at < day_ends AND o.step = 3 AND o.service = 2
       AND l.debit_owner = partner AND l.debit_code <> 1103
    UNION ALL
    SELECT card_key(substr(encode(substr(v.raw, 7, 10), 'hex'), 2)), (1::bigint << 48) + v.atc::bigint * 4294967296 + v.psam_serial, v.amount_fen,
           substr(encode(substr(v.raw, 7, 10), 'hex'), 2)::character(19), ''::character(12), 0::smallint, v.entry_no
      FROM foreign_verdict v
     WHERE v.business_date = day AND v.issuer_id::bigint = partner AND v.result = '00'
$$;

-- The third side: what a terminal's batch says of one of its transactions.
CREATE FUNCTION terminal_says(wanted_terminal integer, wanted_batch integer, wanted_stan integer) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT CASE WHEN d.amount_fen IS NOT NULL THEN format('listed with %s fen', d.amount_fen)
                WHEN b.state = 0 THEN 'batch open'
                WHEN f.matter = 'NOT_THERE' THEN 'not listed'
                WHEN f.matter IS NOT NULL THEN 'totals differ'
                WHEN b.closed_at IS NULL THEN 'batch not closed'
                ELSE 'totals agree' END
      FROM terminal_batch b
      LEFT JOIN LATERAL (SELECT amount_fen FROM terminal_batch_detail
                          WHERE terminal_no = b.terminal_no AND batch_no = b.batch_no AND stan = wanted_stan ORDER BY entry_no, line LIMIT 1) AS d ON true
      LEFT JOIN LATERAL (SELECT matter FROM terminal_batch_difference
                          WHERE terminal_no = b.terminal_no AND batch_no = b.batch_no AND coalesce(stan, wanted_stan) = wanted_stan
                          ORDER BY stan NULLS LAST, line LIMIT 1) AS f ON true
     WHERE b.terminal_no = wanted_terminal AND b.batch_no = wanted_batch
$$;

-- Differences as they are today. What waited for a load is done with when the load has ended by itself.
CREATE VIEW difference_today AS
SELECT d.difference_no, d.partner_id, d.business_date, d.k1, d.k2, d.outcome, d.differs, d.ours_count, d.ours_fen, d.theirs_count, d.theirs_fen, d.shard,
       d.entry_no, d.load_no, d.line_no, d.card, d.rrn, d.terminal, d.first_run, d.case_no,
       CASE WHEN d.outcome = 'load' AND d.state = 'OPEN' AND p.state NOT IN (1, 4) THEN 'CLOSED' ELSE d.state END AS state,
       greatest(0, (SELECT max(business_date) FROM business_day WHERE begins_at <= now()) - d.business_date) AS age_days
  FROM reconcile_difference d
  LEFT JOIN purse_load p ON d.outcome = 'load' AND p.shard = d.shard AND p.entry_no = d.load_no;
