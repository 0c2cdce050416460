-- Files for merchants: a payout, its batches, its transactions.

-- name: payouts
-- Ordered ones of merchants, with their lines, in the order of the transactions' stream.
SELECT p.payout_id, p.party, l.merchant_no, p.amount_fen, a.mask, a.bank_code, o.execution_date, o.created_at, l.carried_in_fen, l.net_fen, l.returned_fen,
       l.held_fen, l.carried_fen
  FROM payout p
  JOIN settlement_line l USING (settlement_date, party)
  JOIN settlement_order o USING (order_id)
  JOIN payout_account a ON a.account_no = p.account_no
 WHERE p.settlement_date = %(date)s AND l.kind = 'MERCHANT'
 ORDER BY l.merchant_no

-- name: day_nets
SELECT party, business_date, net_fen FROM settlement_line_day WHERE settlement_date = %(date)s AND party = ANY(%(parties)s::text[]) ORDER BY business_date

-- name: files
SELECT name, payout_id, line_count, net_fen, upper(encode(sm3, 'hex')), size_bytes FROM settlement_file WHERE settlement_date = %(date)s ORDER BY name

-- name: keep_files
INSERT INTO settlement_file (settlement_date, name, payout_id, line_count, net_fen, sm3, size_bytes)
SELECT %(date)s, n.name, n.payout_id, n.line_count, n.net_fen, decode(n.sm3, 'hex'), n.size_bytes
  FROM unnest(%(names)s::text[], %(payouts)s::text[], %(counts)s::bigint[], %(nets)s::bigint[], %(sm3s)s::text[], %(sizes)s::bigint[])
       AS n (name, payout_id, line_count, net_fen, sm3, size_bytes)

-- name: lines
-- Sales, refunds and what undoes them, each with its fee; then what was booked otherwise, such as disputes. Batch by batch.
COPY (
WITH run AS MATERIALIZED (
    SELECT first_day, last_day FROM settlement_run WHERE settlement_date = %(date)s
), line AS (
    SELECT c.merchant_no, c.business_date, coalesce(t.terminal_id, '') AS terminal, c.batch_no, c.at, c.entry_no, c.local_time, c.stan, c.rrn, c.kind,
           c.account_kind, left(c.pan, 6) || repeat('*', length(c.pan) - 10) || right(c.pan, 4) AS card, c.effect_fen AS amount_fen, c.fee_fen, '' AS what
      FROM clearing_charge c
      LEFT JOIN terminal t USING (terminal_no)
     WHERE c.business_date >= (SELECT first_day FROM run) AND c.business_date <= (SELECT last_day FROM run) AND c.payable_code = 2101
       AND (%(every)s OR c.merchant_no = ANY(%(merchants)s::integer[]))
    UNION ALL
    SELECT s.owner::integer, b.business_date, '', 0, b.booked_at, b.entry_no, b.booked_at AT TIME ZONE INTERVAL '8 hours', 0, '', 0::smallint, 0::smallint, '',
           s.fen, 0, b.event
      FROM booking b
      JOIN posting p ON p.shard = 0 AND p.entry_no = b.entry_no AND p.business_date = b.business_date
     CROSS JOIN LATERAL (VALUES (p.debit_code, p.debit_owner, -p.amount_fen), (p.credit_code, p.credit_owner, p.amount_fen)) AS s (code, owner, fen)
     WHERE b.business_date BETWEEN (SELECT first_day FROM run) AND (SELECT last_day FROM run) AND b.source NOT LIKE 'payout %%' AND s.code = 2101
       AND (%(every)s OR s.owner = ANY(%(merchants)s::integer[]))
)
SELECT merchant_no, to_char(business_date, 'YYYY-MM-DD'), terminal, batch_no, to_char(local_time, 'YYYY-MM-DD HH24:MI:SS'), stan, rrn, kind, account_kind, card,
       amount_fen, fee_fen, what
  FROM line
 ORDER BY merchant_no, business_date, terminal, batch_no, at, entry_no
) TO STDOUT
