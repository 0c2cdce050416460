-- The ER lines of a day (outgoing.py). The operator's own institution is told nothing: its people have the cases.

-- name: decided
-- To issuer and acquirer, in the order of the decisions; whoever is both is told as the issuer. A load (08) is no item of a member's file.
SELECT p.member_id, CASE WHEN c.member_id = p.member_id THEN c.member_case ELSE lpad(c.case_no::text, 16, '0') END, e.action, e.amount_fen,
       p.member_id = c.issuer_id, e.reason,
       y.line_date,
       CASE WHEN c.item_entry IS NULL OR NOT x.cleared THEN e.entry_no ELSE c.item_entry END,
       coalesce(c.item_date, e.business_date)
  FROM dispute_event e
  JOIN dispute_case c USING (case_no)
  JOIN clearing_day d ON d.business_date = %(day)s
 -- A purchase of unknown end has no line: nothing of it was cleared.
 CROSS JOIN LATERAL (SELECT c.source <> 1 OR EXISTS (
       SELECT FROM journal j WHERE j.business_date = c.original_date AND j.shard = c.shard AND j.terminal_no = c.terminal_no
                               AND j.entry_no = c.original_entry AND j.effect_fen > 0) AS cleared) AS x
 CROSS JOIN LATERAL (SELECT CASE WHEN c.item_entry IS NULL OR NOT x.cleared THEN e.business_date ELSE c.item_date END AS line_date) AS y
 -- The acquirer with which the line's day is closed has the line, if the merchant has changed to another since.
  LEFT JOIN clearing_merchant f ON f.business_date = y.line_date AND f.merchant_no = c.merchant_no
 CROSS JOIN LATERAL (SELECT DISTINCT unnest(ARRAY[c.issuer_id, coalesce(f.acquirer_id, c.acquirer_id)]) AS member_id) AS p
 WHERE e.business_date = %(day)s AND e.what = 'DONE' AND e.action <> '08' AND p.member_id NOT IN (d.own_id, d.centre_id)
 ORDER BY e.at, e.case_no, e.seq, p.member_id;

-- name: denied
-- To the member whose file had asked; it has a line of it, or its file would have been refused.
SELECT substr(e.actor, 8), CASE WHEN c.member_id = substr(e.actor, 8) THEN c.member_case ELSE lpad(c.case_no::text, 16, '0') END, e.action, 0,
       e.reason, c.item_date, c.item_entry, c.item_date
  FROM dispute_event e
  JOIN dispute_case c USING (case_no)
 WHERE e.business_date = %(day)s AND e.what = 'DENIED' AND e.actor LIKE 'member %%'
 ORDER BY e.at, e.case_no, e.seq;

-- name: refused
SELECT member_id, member_case, action, original_line, 0, refusal, original_date
  FROM dispute_received
 WHERE business_date = %(day)s AND refusal <> ''
 ORDER BY file_no, line_no;

-- name: copy_lines
COPY clearing_dispute (business_date, member_id, line_no, case_text, action, original_line, amount_fen, reason, original_date) FROM STDIN;

-- name: settled
-- In the order of the members' numbers.
SELECT member_id, count(*), coalesce(sum(greatest(amount_fen, 0)), 0)::bigint
  FROM clearing_dispute WHERE business_date = %(day)s GROUP BY member_id ORDER BY member_id;
