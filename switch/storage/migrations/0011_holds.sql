-- depends: 0010_routes
-- Pre-authorisation 預授權: money of an online account that is promised to a merchant and not yet taken.

-- held_fen: the sum of what the account's open holds freeze; balance_fen - held_fen may be spent.
-- holds_due: no open hold expires before it. A batch that finds it passed reads the holds and sets the expired ones free, so a hold
-- ends by the database's clock whether or not anybody has tidied up. Both stand here so that a purchase needs no other row.
ALTER TABLE account
    ADD COLUMN held_fen  bigint NOT NULL DEFAULT 0,
    ADD COLUMN holds_due timestamptz,
    ADD CONSTRAINT held_is_there CHECK (held_fen BETWEEN 0 AND balance_fen),
    ADD CONSTRAINT held_online_only CHECK (kind = 10 OR holds_due IS NULL),
    ADD CONSTRAINT held_falls_due CHECK (held_fen = 0 OR holds_due IS NOT NULL);

-- One row per approved pre-authorisation, under its entry number; written under the lock on the account.
-- frozen_fen: what it keeps from being spent. Less than amount_fen only where a completion or void was undone and the holder had spent
-- the money in between.
-- ended_by: entry_no of the completion, void or reversal that ended it, 0 when it expired, NULL while it is open.
CREATE TABLE hold (
    shard         smallint NOT NULL,
    entry_no      bigint NOT NULL,
    business_date date NOT NULL,
    account_id    bigint NOT NULL,
    amount_fen    bigint NOT NULL CHECK (amount_fen > 0),
    frozen_fen    bigint NOT NULL CHECK (frozen_fen BETWEEN 0 AND amount_fen),
    expires_at    timestamptz NOT NULL,
    ended_by      bigint,
    completed_by  bigint,  -- entry_no of the last completion, kept when that is voided
    PRIMARY KEY (shard, entry_no),
    CHECK (ended_by IS NULL OR frozen_fen = 0)
);
CREATE INDEX hold_open ON hold (shard, account_id) WHERE ended_by IS NULL;
CREATE INDEX hold_expiring ON hold (shard, expires_at) WHERE ended_by IS NULL;

-- A completion is charged by the rule of its own day; a refund, void or reversal mirrors the fee of what it gives back.
CREATE OR REPLACE VIEW clearing_item AS
SELECT j.business_date, j.entry_no, j.decided_at AS at, j.merchant_no, j.terminal_no, j.batch_no, j.stan,
       CASE WHEN j.account_id IS NULL THEN 20 ELSE j.account_id % 100 END::smallint AS account_kind,
       j.pan, j.effect_fen,
       CASE WHEN j.kind IN (8, 10) THEN j.business_date ELSE coalesce(j.original_date, j.business_date) END AS rule_date,
       2101::smallint AS payable_code, j.kind, j.rrn,
       j.auth_code, j.entry_mode, j.decided_at AT TIME ZONE INTERVAL '8 hours' AS local_time, '' AS other
  FROM journal j
 WHERE j.effect_fen <> 0
UNION ALL
SELECT r.business_date, r.entry_no, r.received_at, r.merchant_no, r.terminal_no, r.batch_no,
       (coalesce(r.record_serial, 0) % 1000000)::integer, 50::smallint, substr(encode(substr(r.raw, 7, 10), 'hex'), 2),
       r.amount_fen, coalesce(r.original_date, r.business_date), r.credit_code, 20::smallint,
       reference_of(r.entry_no, r.received_at), '', '072', r.happened_at,
       upper(encode(substr(r.raw, 29, 2) || substr(r.raw, 52, 4), 'hex'))
  FROM purse_record r
 WHERE r.result IN ('10', '00') AND r.amount_fen > 0;

-- What a reversal undid: the member's line repeats the condition code of that. NULL on days closed before this was kept, when there
-- were no completions.
ALTER TABLE clearing_original ADD COLUMN original_kind smallint;
