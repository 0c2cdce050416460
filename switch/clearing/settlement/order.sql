-- Payment orders to the custody bank.

-- name: approved
-- With the account in force now, and what the books hold for the merchant: folded money, less debits that are not folded yet. Earlier ones of the
-- same merchant count first.
WITH waiting AS MATERIALIZED (
    SELECT p.payout_id, p.settlement_date, p.party, l.kind, l.merchant_no, p.amount_fen, p.account_no, p.approved_by, r.prepared_by
      FROM payout p
      JOIN settlement_line l USING (settlement_date, party)
      JOIN settlement_run r USING (settlement_date)
     WHERE p.state = 'APPROVED' AND p.settlement_date = %(date)s
     ORDER BY p.payout_id
     LIMIT %(most)s
       FOR UPDATE OF p
), held AS MATERIALIZED (
    SELECT owner, sum(fen) AS fen
      FROM (SELECT f.owner, f.credit_fen - f.debit_fen AS fen FROM folded_balance f WHERE f.code = 2101
            UNION ALL
            SELECT p.debit_owner, -p.amount_fen
              FROM posting p JOIN fold_watermark w ON w.shard = p.shard AND p.txid >= w.folded_to
             WHERE p.debit_code = 2101 AND p.business_date >= %(since)s) AS every
     GROUP BY owner
)
SELECT w.payout_id, w.party, w.kind, w.merchant_no, w.amount_fen, w.account_no, w.approved_by, w.prepared_by, a.account_no, coalesce(h.fen, 0)::bigint,
       EXISTS (SELECT FROM payout c WHERE c.party = w.party AND c.state = 'EXPECTED') AS owes
  FROM waiting w
  LEFT JOIN held h ON h.owner = w.merchant_no
  LEFT JOIN LATERAL (
       SELECT account_no FROM payout_account p
        WHERE p.party = w.party AND p.confirmed_by IS NOT NULL AND p.valid_from <= %(today)s
        ORDER BY p.valid_from DESC, p.confirmed_at DESC, p.account_no DESC LIMIT 1) AS a ON true
 ORDER BY w.payout_id

-- name: institution_accounts
SELECT coalesce(sum(debit_fen - credit_fen) FILTER (WHERE code = 1101), 0)::bigint,
       coalesce(sum(debit_fen - credit_fen) FILTER (WHERE code = 1102), 0)::bigint,
       coalesce(sum(credit_fen - debit_fen) FILTER (WHERE code = 2102), 0)::bigint
  FROM folded_balance WHERE owner = %(owner)s AND code IN (1101, 1102, 2102)

-- name: clock
SELECT clock_timestamp()

-- name: orders_so_far
SELECT count(*) FROM settlement_order WHERE settlement_date = %(date)s

-- name: add_order
INSERT INTO settlement_order (order_id, settlement_date, execution_date, created_at, created_by, account_no, payout_count, total_fen, override)
VALUES (%(order_id)s, %(date)s, %(execution_date)s, date_trunc('second', %(now)s::timestamptz), %(actor)s, %(account_no)s, %(count)s, %(total_fen)s,
        %(override)s)

-- name: orders
SELECT order_id, settlement_date, execution_date, created_at, created_by, account_no, payout_count, total_fen, override, upper(encode(sm3, 'hex')), size_bytes
  FROM settlement_order
 WHERE settlement_date = %(date)s ORDER BY order_id

-- name: transfers
SELECT p.payout_id, p.amount_fen, a.account_no, a.party, a.account_name, a.bank_code, a.sealed, a.mask
  FROM payout p JOIN payout_account a ON a.account_no = p.account_no
 WHERE p.order_id = %(order_id)s ORDER BY p.payout_id

-- name: account
SELECT account_no, party, account_name, bank_code, sealed, mask FROM payout_account WHERE account_no = %(account_no)s

-- name: store_digest
UPDATE settlement_order SET sm3 = decode(%(sm3)s, 'hex'), size_bytes = %(size)s WHERE order_id = %(order_id)s AND sm3 IS NULL
