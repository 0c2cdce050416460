-- depends: 0020_host_outbox
-- Transactions of a day whose money a bank, the fund or another city owes: who that is, and what counts as the card and its account.

-- Kept like the originals: a refund names a leg of any earlier day, and legs may be gone one day when files are made again.
-- entry_no: the item's. issuer_id: the institution that owes us. NULL for the fund, which is no member: the operator stands for the
-- accounts that it keeps, and has its claim on the fund (1103) outside the net. pan: the card as the host knows it, for that member's file alone.
CREATE TABLE clearing_leg (
    business_date date NOT NULL REFERENCES clearing_day,
    entry_no      bigint NOT NULL,
    account_kind  smallint NOT NULL CHECK (account_kind IN (10, 20, 40)),
    issuer_id     text CHECK (issuer_id ~ '^[0-9]{8}$'),
    pan           text NOT NULL,
    PRIMARY KEY (business_date, entry_no)
);
CREATE TRIGGER closed BEFORE INSERT OR UPDATE OR DELETE ON clearing_leg FOR EACH ROW EXECUTE FUNCTION refuse_change_of_closed_day();

-- owing_id: who owes it, where that is another institution. issuer_pan: the card as its issuer knows it.
CREATE OR REPLACE VIEW clearing_item AS
SELECT j.business_date, j.entry_no, j.decided_at AS at, j.merchant_no, j.terminal_no, j.batch_no, j.stan,
       CASE WHEN l.account_kind IS NOT NULL THEN l.account_kind WHEN j.account_id IS NULL THEN 20
            ELSE j.account_id % 100 END::smallint AS account_kind,
       j.pan, j.effect_fen,
       CASE WHEN j.kind IN (8, 10) THEN j.business_date ELSE coalesce(j.original_date, j.business_date) END AS rule_date,
       2101::smallint AS payable_code, j.kind, j.rrn,
       j.auth_code, j.entry_mode, j.decided_at AT TIME ZONE INTERVAL '8 hours' AS local_time, '' AS other,
       l.issuer_id AS owing_id, coalesce(l.pan, j.pan) AS issuer_pan
  FROM journal j
  LEFT JOIN clearing_leg l USING (business_date, entry_no)
 WHERE j.effect_fen <> 0
UNION ALL
SELECT r.business_date, r.entry_no, r.received_at, r.merchant_no, r.terminal_no, r.batch_no,
       (coalesce(r.record_serial, 0) % 1000000)::integer, 50::smallint, c.pan,
       r.amount_fen, coalesce(r.original_date, r.business_date), r.credit_code, 20::smallint,
       reference_of(r.entry_no, r.received_at), '', '072', r.happened_at,
       upper(encode(substr(r.raw, 29, 2) || substr(r.raw, 52, 4), 'hex')), NULL, c.pan
  FROM purse_record r
 CROSS JOIN LATERAL (SELECT substr(encode(substr(r.raw, 7, 10), 'hex'), 2) AS pan) AS c
 WHERE r.result IN ('10', '00') AND r.amount_fen > 0;

-- The issuer is who owes the money: a bank or another city, else the operator.
DROP VIEW clearing_charge;
CREATE VIEW clearing_charge AS
SELECT i.*, coalesce(i.owing_id, d.own_id) AS issuer_id, d.own_id, d.acquirer_code, m.merchant_id, m.category, m.acquirer_id, f.fee_fen,
       f.fee_fen * r.weight_issuer / (r.weight_issuer + r.weight_switch + r.weight_acquirer) AS issuer_fee_fen,
       f.fee_fen * r.weight_switch / (r.weight_issuer + r.weight_switch + r.weight_acquirer) AS switch_fee_fen
  FROM clearing_item i
  LEFT JOIN clearing_day d USING (business_date)
  LEFT JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN clearing_rule r USING (business_date, merchant_no, account_kind, rule_date)
 CROSS JOIN LATERAL (SELECT fee_of(i.effect_fen, r.rate_ppm, r.minimum_fen, r.cap_fen) AS fee_fen) AS f;
