-- Cases (cases.py, originals.py, evidence.py, er_files.py, views.py).

-- name: take_stamp
-- Behind the purse's gate: the day that this names is not sealed before the transaction ends.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date, (clock.now AT TIME ZONE INTERVAL '8 hours')::date
  FROM clock JOIN business_day d ON d.begins_at <= clock.now AND clock.now < d.ends_at;

-- acquirer: of a closed day the one that it was closed with, whoever serves the merchant since.

-- name: find_entry
-- Purchases or completions, approved or of unknown end at a host. One partition is read, once for all that are asked for.
SELECT j.entry_no, j.shard, j.entry_no, j.business_date, j.entry_no, j.business_date, j.merchant_no, j.terminal_no,
       coalesce(l.account_kind, j.account_id %% 100, 20)::smallint, j.amount_fen,
       CASE WHEN l.debit_owner <> 0 THEN lpad(l.debit_owner::text, 8, '0') ELSE %(own)s END, coalesce(f.acquirer_id, m.acquirer_id), j.effect_fen > 0
  FROM journal j
  JOIN merchant m USING (merchant_no)
  LEFT JOIN clearing_merchant f ON f.business_date = j.business_date AND f.merchant_no = j.merchant_no
  LEFT JOIN host_leg l ON l.shard = j.shard AND l.ended_by = j.entry_no
 WHERE j.business_date = %(day)s AND j.class = 0 AND j.kind IN (1, 8, 10) AND (j.entry_no = ANY(%(entries)s::bigint[]) OR j.rrn = %(rrn)s)
   AND j.amount_fen > 0;

-- name: find_record
-- An offline record of ours by any of its rows. Its item is whoever uses up its counter, where that is this record; of one that waits or
-- was refused there is none.
SELECT r.entry_no, r.shard, o.entry_no, o.business_date, a.entry_no, a.business_date, o.merchant_no, o.terminal_no, 50::smallint, o.amount_fen,
       %(own)s, coalesce(f.acquirer_id, m.acquirer_id), true
  FROM purse_record r
  JOIN purse_record o ON o.entry_no = coalesce(r.original_entry, r.entry_no) AND o.business_date = coalesce(r.original_date, r.business_date)
  JOIN merchant m ON m.merchant_no = o.merchant_no
  LEFT JOIN purse_atc a ON a.card = o.card AND a.atc = o.atc AND a.amount_fen = o.amount_fen AND a.mark = substr(o.raw, 39, 21)
  LEFT JOIN clearing_merchant f ON f.business_date = coalesce(a.business_date, o.business_date) AND f.merchant_no = o.merchant_no
 WHERE r.business_date = %(day)s AND r.entry_no = ANY(%(entries)s::bigint[]) AND r.card_no IS NOT NULL AND r.amount_fen > 0
   AND o.result IN ('10', '04', '01', '02');

-- name: find_verdict
-- Another city's card that its city paid for; by its record, or by what paid it.
SELECT CASE WHEN v.entry_no = ANY(%(entries)s::bigint[]) THEN v.entry_no ELSE v.original_entry END, 0::smallint, v.original_entry, v.original_date, v.entry_no, v.business_date, v.merchant_no, v.terminal_no, 50::smallint, v.amount_fen,
       v.issuer_id, coalesce(f.acquirer_id, m.acquirer_id), true
  FROM foreign_verdict v
  JOIN merchant m USING (merchant_no)
  LEFT JOIN clearing_merchant f ON f.business_date = v.business_date AND f.merchant_no = v.merchant_no
 WHERE (v.entry_no = ANY(%(entries)s::bigint[]) AND v.business_date = %(day)s
        OR v.original_entry = ANY(%(entries)s::bigint[]) AND v.original_date = %(day)s)
   AND v.result = '00' AND v.amount_fen > 0;

-- name: find_load
SELECT l.shard, l.entry_no, l.business_date, NULL::bigint, NULL::date, j.merchant_no, j.terminal_no, 50::smallint, l.amount_fen,
       CASE WHEN l.debit_code = 1101 THEN lpad(l.debit_owner::text, 8, '0') ELSE %(own)s END, coalesce(f.acquirer_id, m.acquirer_id), true
  FROM purse_load l
  JOIN journal j ON j.shard = l.shard AND j.business_date = l.business_date AND j.entry_no = l.entry_no
  JOIN merchant m ON m.merchant_no = j.merchant_no
  LEFT JOIN clearing_merchant f ON f.business_date = j.business_date AND f.merchant_no = j.merchant_no
 WHERE l.entry_no = %(entry_no)s;

-- name: open_case
-- Whoever comes second finds the first one's case, and gets nothing here.
INSERT INTO dispute_case (opened_at, opened_on, source, shard, original_entry, original_date, item_entry, item_date, merchant_no, terminal_no,
                          account_kind, amount_fen, issuer_id, acquirer_id, member_id, member_case, state, due_on, asked_action, asked_fen,
                          asked_outcome, asked_reason, asked_by, asked_at)
VALUES (%(now)s, %(today)s, %(source)s, %(shard)s, %(original_entry)s, %(original_date)s, %(item_entry)s, %(item_date)s, %(merchant_no)s,
        %(terminal_no)s, %(account_kind)s, %(case_fen)s, %(issuer_id)s, %(acquirer_id)s, %(member_id)s, %(member_case)s, %(state)s, %(due_on)s,
        %(asked_action)s, %(asked_fen)s, %(asked_outcome)s, %(asked_reason)s, %(asked_by)s, %(asked_at)s)
    ON CONFLICT DO NOTHING
RETURNING case_no;

-- name: case_of
-- The case that stands in the way of another one about the same transaction.
SELECT case_no, state FROM dispute_case
 WHERE original_entry = %(original_entry)s AND (state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK') OR charged_fen IS NOT NULL)
 ORDER BY state IN ('NEW', 'RETRIEVAL', 'CHARGED_BACK') DESC
 LIMIT 1;

-- name: lock_case
SELECT case_no, opened_at, opened_on, source, shard, original_entry, original_date, item_entry, item_date, merchant_no, terminal_no, account_kind,
       amount_fen, issuer_id, acquirer_id, member_id, member_case, state, events, charged_fen, charged_on, charged_entry, due_on, asked_action,
       asked_fen, asked_outcome, asked_reason, asked_by, asked_at
  FROM dispute_case WHERE case_no = %(case_no)s
   FOR UPDATE;

-- name: add_event
INSERT INTO dispute_event (case_no, seq, at, business_date, what, action, before_state, after_state, amount_fen, reason, note, actor, checker,
                           entry_no)
VALUES (%(case_no)s, %(seq)s, %(at)s, %(today)s, %(what)s, %(action)s, %(before_state)s, %(after_state)s, %(amount_fen)s, %(reason)s, %(note)s,
        %(actor)s, %(checker)s, %(entry_no)s);

-- name: wait_for_checker
UPDATE dispute_case
   SET events = %(seq)s, asked_action = %(asked_action)s, asked_fen = %(asked_fen)s, asked_outcome = %(asked_outcome)s,
       asked_reason = %(asked_reason)s, asked_by = %(asked_by)s, asked_at = %(asked_at)s
 WHERE case_no = %(case_no)s;

-- name: move_case
UPDATE dispute_case
   SET events = %(seq)s, state = %(state)s, due_on = %(due_on)s,
       charged_fen = coalesce(%(charged_fen)s, charged_fen), charged_on = coalesce(%(charged_on)s, charged_on),
       charged_entry = coalesce(%(charged_entry)s, charged_entry),
       asked_action = NULL, asked_fen = NULL, asked_outcome = NULL, asked_reason = NULL, asked_by = NULL, asked_at = NULL
 WHERE case_no = %(case_no)s;

-- name: count_event
UPDATE dispute_case SET events = %(seq)s WHERE case_no = %(case_no)s;

-- name: settle_case
-- With a load's own move, on its link. That the event is there already fails the whole: somebody else decided this case meanwhile.
WITH moved AS (
    UPDATE dispute_case
       SET events = %(seq)b::integer, state = %(state)b, due_on = NULL, asked_action = NULL, asked_fen = NULL, asked_outcome = NULL,
           asked_reason = NULL, asked_by = NULL, asked_at = NULL
     WHERE case_no = %(case_no)b::bigint
)
INSERT INTO dispute_event (case_no, seq, at, business_date, what, action, before_state, after_state, amount_fen, reason, note, actor, checker,
                           entry_no)
VALUES (%(case_no)b::bigint, %(seq)b::integer, %(at)b::timestamptz, %(today)b::date, 'DONE', '08', %(before_state)b, %(state)b,
        %(amount_fen)b::bigint, %(reason)b, %(note)b, %(actor)b, %(checker)b, %(entry_no)b::bigint);

-- name: add_refusal
INSERT INTO dispute_refusal (at, business_date, case_no, original_entry, action, amount_fen, rule, detail, actor)
VALUES (%(at)s, %(today)s, %(case_no)s, %(original_entry)s, %(action)s, %(amount_fen)s, %(rule)s, %(detail)s, %(actor)s);

-- name: find_lapsed
-- Of what nobody may ask for any more. What waits for a checker was asked for in time, and does not lapse.
SELECT case_no FROM dispute_case
 WHERE state IN ('RETRIEVAL', 'CHARGED_BACK') AND asked_action IS NULL
   AND due_on < (clock_timestamp() AT TIME ZONE INTERVAL '8 hours')::date
 ORDER BY due_on, case_no
 LIMIT %(limit)s;

-- name: count_evidence
SELECT count(*) FILTER (WHERE sm3 IS NOT NULL), count(*) FILTER (WHERE sm3 = %(sm3)s), count(*)
  FROM dispute_evidence WHERE case_no = %(case_no)s;

-- name: add_evidence
INSERT INTO dispute_evidence (case_no, seq, note, name, media_type, size_bytes, sm3)
VALUES (%(case_no)s, %(seq)s, %(note)s, %(name)s, %(media_type)s, %(size_bytes)s, %(sm3)s);

-- name: list_evidence
SELECT v.seq, e.at, e.actor, v.note, v.name, v.media_type, v.size_bytes, upper(encode(v.sm3, 'hex'))
  FROM dispute_evidence v JOIN dispute_event e USING (case_no, seq)
 WHERE v.case_no = %(case_no)s ORDER BY v.seq;

-- name: waiting_of_members
-- Asked for by members' files, the oldest first.
SELECT case_no FROM dispute_case
 WHERE asked_by LIKE 'member %%' AND case_no > %(after)s
 ORDER BY case_no
 LIMIT %(limit)s;

-- name: add_received
INSERT INTO dispute_received (file_no, line_no, business_date, member_id, member_case, action, original_line, amount_fen, reason, original_date,
                              case_no, refusal, detail)
VALUES (%(file_no)s, %(line_no)s, %(today)s, %(member_id)s, %(member_case)s, %(action)s, %(original_line)s, %(amount_fen)s, %(reason)s,
        %(original_date)s, %(case_no)s, %(refusal)s, %(detail)s);

-- name: find_by_number
-- A case that a member names: by its own number, or by ours.
SELECT case_no FROM dispute_case
 WHERE (member_id = %(member)s AND member_case = %(text)s) OR (case_no = %(number)s AND %(member)s IN (issuer_id, acquirer_id));

-- name: closed_among
-- Of these dates those whose day is closed: only they have lines.
SELECT business_date FROM business_day WHERE state = 2 AND business_date = ANY(%(days)s::date[]);

-- name: entries_like
-- What a member may mean by lines that it sends: what it issued or acquired on a day at these terminals, with these references.
SELECT c.entry_no
  FROM clearing_charge c
 WHERE c.business_date = %(day)s AND c.rrn = ANY(%(rrns)s)
   AND c.terminal_no IN (SELECT terminal_no FROM terminal WHERE terminal_id = ANY(%(terminals)s))
   AND (c.issuer_id = %(member)s OR c.acquirer_id = %(member)s);

-- name: evidence_bytes
-- Of all files in the folder: the same content is kept once.
SELECT coalesce(sum(size_bytes), 0)::bigint FROM (SELECT DISTINCT sm3, size_bytes FROM dispute_evidence WHERE sm3 IS NOT NULL) AS kept;
