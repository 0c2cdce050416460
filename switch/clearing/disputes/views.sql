-- Cases to look at (views.py). A card is shown by its first six and last four digits.

-- name: list
SELECT c.case_no, c.opened_at, c.state, m.merchant_id, c.issuer_id, c.acquirer_id, coalesce(c.member_id, ''), c.member_case, c.source, c.original_entry,
       coalesce(c.item_date, c.original_date), c.account_kind, c.amount_fen, coalesce(c.charged_fen, 0), coalesce(c.asked_action, ''),
       coalesce(c.asked_fen, 0), coalesce(c.asked_by, ''), c.due_on,
       c.state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK')
       AND coalesce((c.asked_at AT TIME ZONE INTERVAL '8 hours')::date + %(decided_within)s, c.due_on) < n.today
  FROM dispute_case c
  JOIN merchant m USING (merchant_no)
 CROSS JOIN (SELECT (clock_timestamp() AT TIME ZONE INTERVAL '8 hours')::date AS today) AS n
 WHERE (%(merchant)s = '' OR m.merchant_id = %(merchant)s)
   AND (%(member)s = '' OR %(member)s IN (c.issuer_id, c.acquirer_id))
   AND (%(every)s OR c.state = ANY(%(states)s))
   AND (%(case_no)s::bigint IS NULL OR c.case_no = %(case_no)s)
 ORDER BY c.case_no DESC
 LIMIT %(limit)s;

-- name: due
-- What somebody must do by then, the most urgent first: an answer that may still come, or a decision that waits (it does not lapse).
SELECT c.case_no, c.state, m.merchant_id, c.issuer_id, c.acquirer_id, w.what, w.fen, w.due_on, w.due_on < n.today
  FROM dispute_case c
  JOIN merchant m USING (merchant_no)
 CROSS JOIN (SELECT (clock_timestamp() AT TIME ZONE INTERVAL '8 hours')::date AS today) AS n
 CROSS JOIN LATERAL (
       SELECT CASE WHEN c.asked_action IS NOT NULL THEN 'decide ' || c.asked_action
                   WHEN c.state = 'CHARGED_BACK' THEN 'answer 05' ELSE 'answer 03' END AS what,
              coalesce(c.asked_fen, c.charged_fen, 0) AS fen,
              CASE WHEN c.asked_action IS NOT NULL THEN (c.asked_at AT TIME ZONE INTERVAL '8 hours')::date + %(decided_within)s
                   ELSE c.due_on END AS due_on) AS w
 WHERE c.state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK') AND w.due_on <= n.today + %(days)s
 ORDER BY w.due_on, c.case_no
 LIMIT %(limit)s;

-- name: events
-- With what was booked by a step: from where to where. Of a load its move has the posting, of a record it is one itself.
SELECT e.seq, e.at, e.business_date, e.what, coalesce(e.action, ''), e.before_state, e.after_state, coalesce(e.amount_fen, 0), e.reason, e.note,
       e.actor, e.checker, coalesce(e.entry_no, 0), coalesce(p.moved, '')
  FROM dispute_event e
  JOIN dispute_case c USING (case_no)
  LEFT JOIN LATERAL (
       SELECT string_agg(format('%%s fen from %%s/%%s to %%s/%%s', amount_fen, debit_code, debit_owner, credit_code, credit_owner), ', ' ORDER BY line) AS moved
         FROM posting WHERE posting.shard = c.shard AND posting.entry_no = e.entry_no AND posting.business_date = e.business_date) AS p ON true
 WHERE e.case_no = %(case_no)s
 ORDER BY e.seq;

-- name: refusals
SELECT at, action, coalesce(amount_fen, 0), rule, detail, actor FROM dispute_refusal WHERE case_no = %(case_no)s ORDER BY refusal_no LIMIT %(limit)s;

-- name: figures
SELECT state, count(*),
       count(*) FILTER (WHERE asked_action IS NOT NULL),
       count(*) FILTER (WHERE coalesce((asked_at AT TIME ZONE INTERVAL '8 hours')::date + %(decided_within)s, due_on)
                              < (clock_timestamp() AT TIME ZONE INTERVAL '8 hours')::date)
  FROM dispute_case
 WHERE state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK')
 GROUP BY state;
