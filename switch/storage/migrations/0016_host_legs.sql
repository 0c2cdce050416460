-- depends: 0015_hot_list
-- Requests that another institution's host decides, and what is still to be told to hosts.

-- class 2: the intent of a request that goes to a host, committed before a byte leaves. It has the key of the request, answer 09
-- (in progress) and no effect; the answer follows as a row of class 0 with the intent as its original. Both are found by one look-up.
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'journal'::regclass
                UNION ALL SELECT 'journal'::regclass LOOP
        EXECUTE format('ALTER TABLE %s DROP CONSTRAINT journal_class_check', part);
    END LOOP;
END $$;
ALTER TABLE journal ADD CONSTRAINT journal_class_check CHECK (class IN (0, 1, 2));

-- The leg of a transaction that lies with a host, under the entry number of its intent (stood in: of its answer). Written under a lock
-- on its terminal.
-- account_kind: 10 (of another city's card), 20 bank, 40 medical. debit_code, debit_owner: who owes us what the host approved.
-- service: 1 purchase, 3 balance, 4 pre-authorisation, 5 load. step: 1 authorisation, 2 financial, 3 advice (stood in).
-- (host, transmitted, trace): the message's key at the host, of MMDDhhmmss and field 11; unique for ever, and the host's for a year.
-- state: 0 ASKED, 1 APPROVED, 2 DECLINED, 3 NOT_SENT, 4 UNKNOWN (given up; a reversal is in the outbox), 5 STOOD_IN.
-- ended_by: the entry that answered. late_code: what the host said after we had given up.
CREATE TABLE host_leg (
    shard         smallint NOT NULL,
    leg_no        bigint NOT NULL,
    business_date date NOT NULL,
    terminal_no   integer NOT NULL,
    batch_no      integer NOT NULL,
    stan          integer NOT NULL,
    merchant_no   integer NOT NULL,
    terminal_id   text NOT NULL,
    merchant_id   text NOT NULL,
    kind          smallint NOT NULL,
    account_kind  smallint NOT NULL CHECK (account_kind IN (10, 20, 40)),
    pan           text NOT NULL,  -- as the host knows it
    amount_fen    bigint NOT NULL CHECK (amount_fen >= 0),
    entry_mode    text NOT NULL,
    rrn           text NOT NULL CHECK (length(rrn) = 12),
    host          text NOT NULL,
    debit_code    smallint NOT NULL CHECK (debit_code IN (1101, 1102, 1103)),
    debit_owner   bigint NOT NULL,
    service       smallint NOT NULL CHECK (service IN (1, 3, 4, 5)),
    step          smallint NOT NULL CHECK (step IN (1, 2, 3)),
    transmitted   text NOT NULL CHECK (transmitted ~ '^[0-9]{10}$'),
    trace         integer NOT NULL CHECK (trace BETWEEN 1 AND 999999),
    asked_at      timestamptz NOT NULL,
    gives_up_at   timestamptz NOT NULL,  -- from then on anybody may end it as unknown
    state         smallint NOT NULL CHECK (state BETWEEN 0 AND 5),
    ended_at      timestamptz,
    ended_by      bigint,
    host_code     text NOT NULL DEFAULT '',
    host_auth     text NOT NULL DEFAULT '',
    host_day      text NOT NULL DEFAULT '',  -- MMDD, on which the host counts it
    late_code     text,
    PRIMARY KEY (shard, leg_no),
    CHECK ((state = 0) = (ended_at IS NULL)),
    CHECK ((ended_by IS NULL) = (ended_at IS NULL))
);
CREATE UNIQUE INDEX host_leg_key ON host_leg (shard, terminal_no, batch_no, stan);
CREATE UNIQUE INDEX host_leg_message ON host_leg (host, transmitted, trace, shard);
CREATE INDEX host_leg_ended ON host_leg (shard, ended_by) WHERE ended_by IS NOT NULL;
CREATE INDEX host_leg_asked ON host_leg (shard, gives_up_at) WHERE state = 0;

-- What a host must still be told, until it has confirmed: durable, in order for each leg, with a back-off for each message.
-- step: 3 advice, 5 reversal advice. service: as above, 2 for a return (void, refund). reason: of a reversal.
-- entry_no: the journal entry that made it necessary. transmitted, trace: its own key at the host; every repeat has the same.
-- due_at: not before; whoever sends it moves this on first, so that two processes do not send it at once.
-- result: NULL open, 1 confirmed, 2 refused by the host: somebody must look into it.
CREATE TABLE host_outbox (
    shard       smallint NOT NULL,
    outbox_no   bigint NOT NULL,
    leg_no      bigint NOT NULL,
    host        text NOT NULL,
    step        smallint NOT NULL CHECK (step IN (3, 5)),
    service     smallint NOT NULL CHECK (service BETWEEN 1 AND 5),
    reason      text NOT NULL DEFAULT '' CHECK ((reason <> '') = (step = 5)),
    amount_fen  bigint NOT NULL CHECK (amount_fen > 0),
    entry_no    bigint NOT NULL,
    rrn         text NOT NULL CHECK (length(rrn) = 12),
    transmitted text NOT NULL CHECK (transmitted ~ '^[0-9]{10}$'),
    trace       integer NOT NULL CHECK (trace BETWEEN 1 AND 999999),
    created_at  timestamptz NOT NULL,
    due_at      timestamptz NOT NULL,
    tries       integer NOT NULL DEFAULT 0,
    last_end    text NOT NULL DEFAULT '',  -- of the last try: the host's code, or why nobody knows
    done_at     timestamptz,
    result      smallint CHECK (result IN (1, 2)),
    PRIMARY KEY (shard, outbox_no),
    CHECK ((done_at IS NULL) = (result IS NULL))
);
CREATE INDEX host_outbox_due ON host_outbox (shard, host, due_at) WHERE result IS NULL;
CREATE INDEX host_outbox_of_leg ON host_outbox (shard, leg_no, outbox_no) WHERE result IS NULL;
CREATE INDEX host_outbox_refused ON host_outbox (shard, host) WHERE result = 2;

-- What a host has not been told yet of what we approved in its place. Locked, in host order, after the accounts.
CREATE TABLE stand_in (
    shard             smallint NOT NULL,
    host              text NOT NULL,
    outstanding_fen   bigint NOT NULL DEFAULT 0 CHECK (outstanding_fen >= 0),
    outstanding_count integer NOT NULL DEFAULT 0 CHECK (outstanding_count >= 0),
    PRIMARY KEY (shard, host)
);
