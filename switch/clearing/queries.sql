-- Closing a day. All set-based: ten million transactions pass through PostgreSQL, and none of them through Python but as a line
-- of a file. %(day)s is the business date.

-- name: begin_day
INSERT INTO clearing_day (business_date, created_at, settlement_date, own_id, centre_id, acquirer_code, shards, interop_id)
VALUES (%(day)s, date_trunc('second', clock_timestamp()), %(settlement_date)s, %(own_id)s, %(centre_id)s, %(acquirer_code)s, %(shards)s,
        %(interop_id)s)
ON CONFLICT (business_date) DO NOTHING;

-- name: read_day
SELECT business_date, created_at, settlement_date, own_id, centre_id, shards FROM clearing_day WHERE business_date = %(day)s;

-- name: predecessor
SELECT business_date, state FROM business_day WHERE business_date < %(day)s ORDER BY business_date DESC LIMIT 1;

-- name: steps
SELECT step, state, actor, started_at, finished_at, outcome FROM clearing_step WHERE business_date = %(day)s ORDER BY ordinal;

-- name: start_step
INSERT INTO clearing_step (business_date, step, ordinal, state, actor, input_sha256)
VALUES (%(day)s, %(step)s, %(ordinal)s, 'RUNNING', %(actor)s, %(read)s)
ON CONFLICT (business_date, step) DO UPDATE
   SET actor = excluded.actor, started_at = clock_timestamp(), input_sha256 = excluded.input_sha256, tries = clearing_step.tries + 1;

-- name: finish_step
UPDATE clearing_step SET state = 'DONE', finished_at = clock_timestamp(), outcome = %(outcome)s, output_sha256 = %(made)s, error = NULL
 WHERE business_date = %(day)s AND step = %(step)s AND state = 'RUNNING';

-- name: note_step
UPDATE clearing_step SET error = %(error)s WHERE business_date = %(day)s AND step = %(step)s AND state = 'RUNNING';

-- name: step_table
SELECT step, ordinal, state, actor, started_at, finished_at, tries, error, encode(input_sha256, 'hex'), encode(output_sha256, 'hex'), outcome
  FROM clearing_step WHERE business_date = %(day)s ORDER BY ordinal;

-- name: who_closes
-- The holder of the closer's lock, as it called itself.
SELECT a.application_name, a.backend_start
  FROM pg_locks l JOIN pg_stat_activity a USING (pid)
 WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %(lock)s AND l.objid = 0
   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: name_legs
-- Items of the day that a host may have decided: all but those of our online accounts. What undoes one has its original's leg.
CREATE TEMPORARY TABLE named_leg ON COMMIT DROP AS
SELECT shard, entry_no, coalesce(original_entry, entry_no) AS ended_by
  FROM journal
 WHERE business_date = %(day)s AND effect_fen <> 0 AND (account_id IS NULL OR account_id %% 100 <> 10);

-- name: freeze_legs
-- Before anything asks for items: their kinds of account and their issuers come from here.
INSERT INTO clearing_leg (business_date, entry_no, account_kind, issuer_id, pan)
SELECT %(day)s, n.entry_no, l.account_kind, CASE WHEN l.debit_owner <> 0 THEN lpad(l.debit_owner::text, 8, '0') END, l.pan
  FROM named_leg n
  JOIN host_leg l ON l.shard = n.shard AND l.ended_by = n.ended_by;

-- name: freeze_adjusted_legs
-- What people moved about offline records is of the purse, and of the city that owes it, whatever account it went to; by the tariff of its ride.
INSERT INTO clearing_leg (business_date, entry_no, account_kind, issuer_id, pan, tariff_on)
SELECT %(day)s, e.entry_no, 50, CASE c.source WHEN 3 THEN c.issuer_id END, j.pan,
       CASE c.source WHEN 3 THEN (SELECT v.happened_at::date FROM foreign_verdict v WHERE v.entry_no = c.item_entry) END
  FROM dispute_event e
  JOIN dispute_case c USING (case_no)
  JOIN journal j ON j.business_date = %(day)s AND j.shard = c.shard AND j.terminal_no = c.terminal_no AND j.class = 3 AND j.entry_no = e.entry_no
 WHERE e.business_date = %(day)s AND e.what = 'DONE' AND c.source IN (2, 3);

-- name: name_keys
-- By what rules are chosen. A table of its own, here and below, since several processes work on what makes one, and never on an INSERT.
CREATE TEMPORARY TABLE named_key ON COMMIT DROP AS
SELECT merchant_no, account_kind, rule_date FROM clearing_item WHERE business_date = %(day)s GROUP BY merchant_no, account_kind, rule_date;

-- name: name_senders
-- Merchants of clearing_offline_record. A verdict of the day about a record of the day has the merchant of that.
CREATE TEMPORARY TABLE named_sender ON COMMIT DROP AS
SELECT merchant_no FROM purse_record WHERE business_date = %(day)s GROUP BY merchant_no
UNION
SELECT merchant_no FROM foreign_verdict WHERE business_date = %(day)s;

-- name: freeze_merchants
-- Everybody with money or an offline record in the day, as the registry knows them now.
INSERT INTO clearing_merchant (business_date, merchant_no, merchant_id, category, acquirer_id)
SELECT %(day)s, m.merchant_no, m.merchant_id, m.category, m.acquirer_id
  FROM (SELECT merchant_no FROM named_key UNION SELECT merchant_no FROM named_sender) AS seen
  JOIN merchant m USING (merchant_no);

-- name: freeze_rules
-- The most specific rule in force on the rule's date: the merchant's, its category's, then the general one. None: no fee.
INSERT INTO clearing_rule (business_date, merchant_no, account_kind, rule_date, rule_no, rate_ppm, minimum_fen, cap_fen,
                           weight_issuer, weight_switch, weight_acquirer)
SELECT %(day)s, k.merchant_no, k.account_kind, k.rule_date, r.rule_no, coalesce(r.rate_ppm, 0), coalesce(r.minimum_fen, 0),
       r.cap_fen, coalesce(r.weight_issuer, 7), coalesce(r.weight_switch, 1), coalesce(r.weight_acquirer, 2)
  FROM named_key k
  JOIN clearing_merchant m ON m.business_date = %(day)s AND m.merchant_no = k.merchant_no
  LEFT JOIN LATERAL (
       SELECT f.* FROM fee_rule f
        WHERE f.account_kind = k.account_kind
          AND (f.merchant_no = k.merchant_no OR f.category = m.category
               OR (f.merchant_no IS NULL AND f.category IS NULL))
          AND k.rule_date >= f.valid_from AND k.rule_date <= coalesce(f.valid_to, 'infinity'::date)
        ORDER BY f.merchant_no IS NULL, f.category IS NULL
        LIMIT 1) AS r ON true;

-- name: name_originals
-- Voids, refunds and reversals of the day, each with the key of what it undoes.
CREATE TEMPORARY TABLE named_original ON COMMIT DROP AS
SELECT shard, entry_no, original_date, original_entry
  FROM journal
 WHERE business_date = %(day)s AND effect_fen <> 0 AND original_entry IS NOT NULL;

-- name: original_dates
SELECT original_date, count(*) FROM named_original GROUP BY original_date ORDER BY original_date;

-- name: freeze_originals
-- One date at a time, so that one partition is read, by whichever way suits the number of originals in it.
INSERT INTO clearing_original (business_date, entry_no, original_stan, original_at, original_kind)
SELECT %(day)s, n.entry_no, o.stan, o.decided_at, o.kind
  FROM named_original n
  JOIN journal o ON o.business_date = %(original_date)s AND o.shard = n.shard AND o.entry_no = n.original_entry
 WHERE n.original_date = %(original_date)s;

-- name: freeze_original_records
-- Trace and instant as the record stood in CM.
INSERT INTO clearing_original (business_date, entry_no, original_stan, original_at, original_kind)
SELECT %(day)s, e.entry_no, coalesce(r.record_serial, v.record_serial) %% 1000000, coalesce(r.received_at, v.decided_at), 20
  FROM dispute_event e
  JOIN dispute_case c USING (case_no)
  LEFT JOIN purse_record r ON c.source = 2 AND r.entry_no = c.item_entry AND r.business_date = c.item_date
  LEFT JOIN foreign_verdict v ON c.source = 3 AND v.entry_no = c.item_entry
 WHERE e.business_date = %(day)s AND e.action IN ('01', '02', '04', '05') AND e.what = 'DONE' AND c.source IN (2, 3);

-- name: freeze_source_lines
-- Records that came in files (batch_no 0) stand where they stood there; a chunk holds consecutive entries.
INSERT INTO clearing_source_line (business_date, entry_no, source_line, source_file, acquirer_id)
SELECT %(day)s, entry_no, line, NULL, NULL
  FROM (SELECT r.entry_no, r.result,
               row_number() OVER (PARTITION BY m.acquirer_id ORDER BY r.received_at, r.entry_no) AS line
          FROM purse_record r
          JOIN clearing_merchant m USING (business_date, merchant_no)
         WHERE r.business_date = %(day)s AND r.original_entry IS NULL AND r.batch_no <> 0) AS numbered
 WHERE result <> '10'
UNION ALL
SELECT %(day)s, r.entry_no, c.first_line + (r.entry_no - c.first_entry), f.name, f.sender_id
  FROM purse_record r
 CROSS JOIN LATERAL (
       SELECT * FROM received_chunk k WHERE k.first_entry <= r.entry_no ORDER BY k.first_entry DESC LIMIT 1) AS c
  JOIN received_file f USING (file_no)
 WHERE r.business_date = %(day)s AND r.original_entry IS NULL AND r.batch_no = 0 AND r.result <> '10';

-- name: freeze_adjusted
-- Fees of what people moved about offline records; nothing is looked for on a day without any.
INSERT INTO clearing_adjusted (business_date, entry_no, merchant_no, amount_fen, fee_fen)
SELECT %(day)s, i.entry_no, i.merchant_no, i.effect_fen, i.fee_fen
  FROM clearing_charge i
 WHERE i.business_date = %(day)s AND i.account_kind = 50 AND i.kind IN (14, 15, 16, 17)
   AND EXISTS (SELECT FROM dispute_event e JOIN dispute_case c USING (case_no)
                WHERE e.business_date = %(day)s AND e.what = 'DONE' AND c.source IN (2, 3));

-- name: sum_charges
CREATE TEMPORARY TABLE summed_charge ON COMMIT DROP AS
SELECT merchant_no, account_kind, issuer_id, payable_code, count(*) AS item_count, sum(abs(effect_fen)) AS volume_fen,
       count(*) FILTER (WHERE effect_fen > 0) AS debit_count, sum(greatest(effect_fen, 0)) AS debit_fen,
       count(*) FILTER (WHERE effect_fen < 0) AS credit_count, sum(-least(effect_fen, 0)) AS credit_fen,
       sum(effect_fen) AS amount_fen, sum(fee_fen) AS fee_fen, sum(issuer_fee_fen) AS issuer_fee_fen, sum(switch_fee_fen) AS switch_fee_fen,
       sum(fee_fen) - sum(issuer_fee_fen) - sum(switch_fee_fen) AS acquirer_fee_fen, sum(greatest(effect_fen - fee_fen, 0)) AS credit_net_fen,
       min(at) AS first_at, min(entry_no) AS first_entry
  FROM clearing_charge
 WHERE business_date = %(day)s
 GROUP BY merchant_no, account_kind, issuer_id, payable_code;

-- name: summarise
INSERT INTO clearing_summary (business_date, merchant_no, account_kind, issuer_id, payable_code, item_count, volume_fen, debit_count,
                              debit_fen, credit_count, credit_fen, amount_fen, fee_fen, issuer_fee_fen, switch_fee_fen,
                              acquirer_fee_fen, credit_net_fen, first_at, first_entry)
SELECT %(day)s, merchant_no, account_kind, issuer_id, payable_code, item_count, volume_fen, debit_count, debit_fen, credit_count, credit_fen,
       amount_fen, fee_fen, issuer_fee_fen, switch_fee_fen, acquirer_fee_fen, credit_net_fen, first_at, first_entry
  FROM summed_charge;

-- name: sum_offline
-- What QS says. Grey (04) and foreign (11) records wait; a record adjudicated on the day it came counts under its end.
CREATE TEMPORARY TABLE summed_offline ON COMMIT DROP AS
SELECT merchant_no,
       count(*) FILTER (WHERE bin = 'confirmed') AS confirmed_count, coalesce(sum(amount_fen) FILTER (WHERE bin = 'confirmed'), 0) AS confirmed_fen,
       count(*) FILTER (WHERE bin = 'refused') AS refused_count, coalesce(sum(amount_fen) FILTER (WHERE bin = 'refused'), 0) AS refused_fen,
       count(*) FILTER (WHERE bin = 'adjusted') AS adjusted_count, coalesce(sum(amount_fen) FILTER (WHERE bin = 'adjusted'), 0) AS adjusted_fen,
       count(*) FILTER (WHERE bin = 'adjust refused') AS adjust_refused_count, coalesce(sum(amount_fen) FILTER (WHERE bin = 'adjust refused'), 0) AS adjust_refused_fen,
       count(*) FILTER (WHERE bin = 'pending') AS pending_count, coalesce(sum(amount_fen) FILTER (WHERE bin = 'pending'), 0) AS pending_fen
  FROM (SELECT merchant_no, amount_fen,
               CASE WHEN result = '10' THEN 'confirmed'
                    WHEN result = '00' THEN 'adjusted'
                    WHEN result IN ('04', '11') THEN 'pending'
                    WHEN taken_on < business_date THEN 'adjust refused'
                    ELSE 'refused' END AS bin
          FROM clearing_offline_record
         WHERE business_date = %(day)s) AS binned
 GROUP BY merchant_no;

-- name: summarise_offline
INSERT INTO clearing_offline (business_date, merchant_no, confirmed_count, confirmed_fen, refused_count, refused_fen,
                              adjusted_count, adjusted_fen, adjust_refused_count, adjust_refused_fen, pending_count,
                              pending_fen)
SELECT %(day)s, merchant_no, confirmed_count, confirmed_fen, refused_count, refused_fen, adjusted_count, adjusted_fen, adjust_refused_count,
       adjust_refused_fen, pending_count, pending_fen
  FROM summed_offline;

-- name: fees_outcome
SELECT coalesce(sum(item_count), 0)::bigint AS items, coalesce(sum(volume_fen), 0)::bigint AS volume_fen,
       coalesce(sum(fee_fen), 0)::bigint AS fee_fen,
       (SELECT count(*) FROM clearing_rule WHERE business_date = %(day)s AND rule_no IS NULL AND account_kind <> 40)
           AS without_rule,
       encode(sha256(convert_to(coalesce(string_agg(s::text, E'\n' ORDER BY merchant_no, account_kind, issuer_id, payable_code), ''),
                                'UTF8')), 'hex') AS sha256
  FROM clearing_summary s WHERE business_date = %(day)s;

-- name: flows
-- Who owes whom, in the order in which the first transactions happened.
SELECT s.issuer_id, m.acquirer_id, sum(s.item_count)::bigint, sum(s.amount_fen)::bigint, sum(s.issuer_fee_fen)::bigint,
       sum(s.switch_fee_fen)::bigint
  FROM clearing_summary s JOIN clearing_merchant m USING (business_date, merchant_no)
 WHERE s.business_date = %(day)s
 GROUP BY s.issuer_id, m.acquirer_id
 ORDER BY min(s.first_at), min(s.first_entry);

-- name: add_position
INSERT INTO clearing_position (business_date, ordinal, institution_id, issuing_count, issuing_fen, acquiring_count,
                               acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen)
VALUES (%(day)s, %(ordinal)s, %(institution)s, %(issuing_count)s, %(issuing_fen)s, %(acquiring_count)s, %(acquiring_fen)s,
        %(issuer_fee_fen)s, %(fees_paid_fen)s, %(net_fen)s);

-- name: fee_shares
-- Who owes how much of the day's fees to whom: a merchant, or the acquirer that is paid for it, to the operator (and the centre
-- that it runs) or to another institution. An acquirer owes nothing to itself. Of other cities' cards the interop centre has the centre's
-- share; and what our cards paid elsewhere brings us a share of the fee there.
CREATE TEMPORARY TABLE fee_share ON COMMIT DROP AS
SELECT payer_code, payer_owner, receiver_code, receiver_owner, sum(fen)::bigint AS amount_fen,
       row_number() OVER (ORDER BY payer_code, payer_owner, receiver_code, receiver_owner) - 1 AS n
  FROM (SELECT payer.code AS payer_code, payer.owner AS payer_owner, receiver.code AS receiver_code, receiver.owner AS receiver_owner,
               part.fen
          FROM clearing_summary s
          JOIN clearing_merchant m USING (business_date, merchant_no)
          JOIN clearing_day d USING (business_date)
         CROSS JOIN LATERAL (SELECT CASE WHEN s.account_kind = 50 AND s.issuer_id <> d.own_id AND d.interop_id <> '' THEN d.interop_id
                                         ELSE d.centre_id END AS centre_id) AS by_way
         CROSS JOIN LATERAL (VALUES (s.issuer_id, s.issuer_fee_fen), (by_way.centre_id, s.switch_fee_fen),
                                    (m.acquirer_id, s.acquirer_fee_fen)) AS part (institution_id, fen)
         CROSS JOIN LATERAL (SELECT s.payable_code AS code, CASE s.payable_code WHEN %(payable)s THEN s.merchant_no::bigint
                                                                 ELSE m.acquirer_id::bigint END AS owner) AS payer
         CROSS JOIN LATERAL (SELECT CASE WHEN part.institution_id IN (d.own_id, d.centre_id) THEN %(income)s
                                         ELSE %(others)s END::smallint AS code,
                                    CASE WHEN part.institution_id IN (d.own_id, d.centre_id) THEN 0
                                         ELSE part.institution_id::bigint END AS owner) AS receiver
         WHERE s.business_date = %(day)s
        UNION ALL
        SELECT %(others)s::smallint, institution_id::bigint, %(income)s::smallint, 0, issuer_fee_fen
          FROM clearing_interop WHERE business_date = %(day)s) AS share
 WHERE (payer_code, payer_owner) <> (receiver_code, receiver_owner)
 GROUP BY payer_code, payer_owner, receiver_code, receiver_owner
HAVING sum(fen) <> 0;

-- name: post_fees
-- A fee given back is the same posting the other way round. serials: first number of each block, 10 000 in a block.
INSERT INTO posting (shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT 0, %(day)s, (%(serials)s::bigint[])[n / %(block)s + 1] + n %% %(block)s, 0,
       CASE WHEN amount_fen > 0 THEN payer_code ELSE receiver_code END,
       CASE WHEN amount_fen > 0 THEN payer_owner ELSE receiver_owner END,
       CASE WHEN amount_fen > 0 THEN receiver_code ELSE payer_code END,
       CASE WHEN amount_fen > 0 THEN receiver_owner ELSE payer_owner END,
       abs(amount_fen)
  FROM fee_share;

-- name: memo_grey
-- Off balance: grey records that came, and those that were decided. A refused record that was accepted later never was in it.
UPDATE clearing_float f
   SET debit_fen = g.came_fen, credit_fen = g.decided_fen, closing_fen = f.opening_fen + g.came_fen - g.decided_fen
  FROM (SELECT coalesce(sum(amount_fen) FILTER (WHERE result = '04'), 0)::bigint AS came_fen,
               coalesce(sum(amount_fen) FILTER (WHERE original_entry IS NOT NULL), 0)::bigint AS decided_fen
          FROM purse_record
         WHERE business_date = %(day)s AND result IN ('04', '00', '94')
           AND entry_no NOT IN (SELECT entry_no FROM dispute_event WHERE business_date = %(day)s AND what = 'DONE' AND action = '07')) AS g
 WHERE f.business_date = %(day)s AND f.code = %(memo)s;

-- name: float_statement
INSERT INTO clearing_float (business_date, code, opening_fen, debit_fen, credit_fen, closing_fen)
SELECT %(day)s, code, opening_fen, debit_fen, credit_fen, opening_fen + debit_fen - credit_fen
  FROM (SELECT c.code, coalesce(before.closing_fen, 0) AS opening_fen, coalesce(sum(m.debit_fen), 0)::bigint AS debit_fen,
               coalesce(sum(m.credit_fen), 0)::bigint AS credit_fen
          FROM unnest(%(codes)s::smallint[]) AS c (code)
          LEFT JOIN (SELECT side.code, side.debit_fen, side.credit_fen
                       FROM (SELECT debit_code, credit_code, amount_fen AS fen FROM clearing_movement WHERE business_date = %(day)s) AS pair
                      CROSS JOIN LATERAL (VALUES (debit_code, fen, 0), (credit_code, 0, fen))
                            AS side (code, debit_fen, credit_fen)) AS m USING (code)
          LEFT JOIN clearing_float before
            ON before.business_date = (SELECT max(business_date) FROM clearing_float WHERE business_date < %(day)s)
           AND before.code = c.code
         GROUP BY c.code, before.closing_fen) AS moved;

-- name: postings_outcome
SELECT (SELECT count(*) FROM fee_share) AS postings,
       (SELECT coalesce(sum(amount_fen), 0)::bigint FROM fee_share) AS fee_fen,
       coalesce(sum(debit_fen), 0)::bigint AS debits_fen, coalesce(sum(credit_fen), 0)::bigint AS credits_fen
  FROM clearing_float WHERE business_date = %(day)s AND code <> 9001;

-- name: members
-- Institutions that settle: in the order of their positions, and the operator's own even when it has none.
SELECT institution_id FROM (
    SELECT institution_id, ordinal FROM clearing_position WHERE business_date = %(day)s
    UNION ALL
    SELECT own_id, 2147483647 FROM clearing_day WHERE business_date = %(day)s) AS every
 GROUP BY institution_id ORDER BY min(ordinal);

-- name: plan_members
SELECT member.id, coalesce(sum(s.item_count), 0)::bigint, coalesce(sum(s.volume_fen), 0)::bigint
  FROM unnest(%(members)s::text[]) WITH ORDINALITY AS member (id, n)
  LEFT JOIN (clearing_summary s JOIN clearing_merchant m USING (business_date, merchant_no))
    ON s.business_date = %(day)s AND (s.issuer_id = member.id OR m.acquirer_id = member.id)
 GROUP BY member.id, member.n ORDER BY member.n;

-- name: plan_merchants
SELECT m.merchant_no, m.merchant_id, sum(s.item_count)::bigint, sum(s.credit_net_fen)::bigint
  FROM clearing_summary s JOIN clearing_merchant m USING (business_date, merchant_no)
 WHERE s.business_date = %(day)s
 GROUP BY m.merchant_no, m.merchant_id ORDER BY m.merchant_no;

-- name: plan_senders
-- Per acquirer with offline records, or files: how many are listed in SS, and their amounts. A record in a file is listed for its sender.
SELECT acquirer_id, count(*) FILTER (WHERE result <> '10'), coalesce(sum(amount_fen) FILTER (WHERE result <> '10'), 0)::bigint
  FROM (SELECT coalesce(l.acquirer_id, m.acquirer_id) AS acquirer_id, r.result, r.amount_fen
          FROM clearing_offline_record r
          LEFT JOIN clearing_merchant m ON m.business_date = r.business_date AND m.merchant_no = r.merchant_no
          LEFT JOIN clearing_source_line l ON l.business_date = r.taken_on AND l.entry_no = r.taken_entry
         WHERE r.business_date = %(day)s
        UNION ALL
        SELECT sender_id, '10', 0 FROM received_file WHERE business_date = %(day)s AND name LIKE 'XF%%') AS every
 WHERE acquirer_id IS NOT NULL
 GROUP BY acquirer_id ORDER BY acquirer_id;

-- name: lines_ns
-- What came record by record during the day, by acquirer, under the name by which SS calls it.
SELECT m.acquirer_id, count(*), coalesce(sum(r.amount_fen), 0)::bigint
  FROM purse_record r JOIN clearing_merchant m USING (business_date, merchant_no)
 WHERE r.business_date = %(day)s AND r.original_entry IS NULL AND r.batch_no <> 0
 GROUP BY m.acquirer_id;

-- name: files_ns
-- Then the files that ended on the day, taken or not.
SELECT name, line_count, total_fen, status
  FROM received_file
 WHERE business_date = %(day)s AND sender_id = %(acquirer)s AND name LIKE 'XF%%'
 ORDER BY file_no;

-- name: lines_qs
SELECT m.merchant_id, o.confirmed_count, o.confirmed_fen, o.refused_count, o.refused_fen, o.adjusted_count, o.adjusted_fen,
       o.adjust_refused_count, o.adjust_refused_fen, (coalesce(sum(s.fee_fen), 0) - a.fee_fen)::bigint,
       (o.confirmed_fen + o.adjusted_fen - coalesce(sum(s.fee_fen), 0) + a.fee_fen)::bigint
  FROM clearing_offline o
  JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN clearing_summary s ON s.business_date = o.business_date AND s.merchant_no = o.merchant_no AND s.account_kind = 50
 CROSS JOIN LATERAL (SELECT coalesce(sum(d.fee_fen), 0)::bigint AS fee_fen FROM clearing_adjusted d
                      WHERE d.business_date = o.business_date AND d.merchant_no = o.merchant_no) AS a
 WHERE o.business_date = %(day)s AND m.acquirer_id = %(acquirer)s
 GROUP BY m.merchant_id, o.confirmed_count, o.confirmed_fen, o.refused_count, o.refused_fen, o.adjusted_count, o.adjusted_fen,
          o.adjust_refused_count, o.adjust_refused_fen, a.fee_fen
 ORDER BY m.merchant_id;

-- name: plan_transit
SELECT t.merchant_no, m.merchant_id, count(*), sum(t.paid_fen)::bigint
  FROM clearing_transit t JOIN clearing_merchant m USING (business_date, merchant_no)
 WHERE t.business_date = %(day)s
 GROUP BY t.merchant_no, m.merchant_id ORDER BY t.merchant_no;

-- name: lines_tr
SELECT m.merchant_id, to_char(t.ride_date, 'YYYYMMDD'), lpad(upper(to_hex(t.industry::integer)), 2, '0'), t.line, t.single_count, t.complete_count,
       t.incomplete_count, t.entry_count, t.open_count, t.transfer_count, t.paid_fen, t.maximum_fen, t.full_fen, t.transfer_discount_fen,
       t.other_discount_fen
  FROM clearing_transit t JOIN clearing_merchant m USING (business_date, merchant_no)
 WHERE t.business_date = %(day)s AND m.merchant_id = %(merchant)s
 ORDER BY t.ride_date, t.industry, t.line;

-- name: lines_np
SELECT institution_id, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen
  FROM clearing_position WHERE business_date = %(day)s ORDER BY ordinal;

-- name: plan_file
INSERT INTO clearing_file (business_date, name, ordinal, party, party_no, line_count, total_fen)
SELECT %(day)s, * FROM unnest(%(names)s::text[], %(ordinals)s::integer[], %(parties)s::text[], %(party_nos)s::integer[],
                              %(line_counts)s::bigint[], %(totals)s::bigint[]);

-- name: files
SELECT f.name, f.party, f.party_no, f.line_count, f.total_fen, encode(f.sm3, 'hex'), f.size_bytes, encode(s.signature, 'hex')
  FROM clearing_file f LEFT JOIN file_signature s USING (name) WHERE f.business_date = %(day)s ORDER BY f.ordinal;

-- name: store_digests
UPDATE clearing_file f SET sm3 = decode(w.sm3, 'hex'), size_bytes = w.size_bytes
  FROM unnest(%(names)s::text[], %(sm3s)s::text[], %(sizes)s::bigint[]) AS w (name, sm3, size_bytes)
 WHERE f.business_date = %(day)s AND f.name = w.name;

-- name: files_outcome
SELECT count(*) AS files, coalesce(sum(size_bytes), 0)::bigint AS bytes, coalesce(sum(line_count), 0)::bigint AS lines,
       encode(sha256(convert_to(coalesce(string_agg(name || encode(sm3, 'hex'), E'\n' ORDER BY ordinal), ''), 'UTF8')), 'hex')
           AS sha256
  FROM clearing_file WHERE business_date = %(day)s;

-- name: close_day
UPDATE business_day SET state = 2 WHERE business_date = %(day)s AND state = 1 AND sealed_at IS NOT NULL;

-- name: money_by_merchant
SELECT m.merchant_id, coalesce(reg.name, ''), sum(s.item_count)::bigint, sum(s.debit_fen)::bigint, sum(s.credit_fen)::bigint,
       sum(s.fee_fen)::bigint, sum(s.amount_fen - s.fee_fen)::bigint
  FROM clearing_summary s
  JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN merchant reg ON reg.merchant_no = m.merchant_no
 WHERE s.business_date = %(day)s
 GROUP BY m.merchant_id, reg.name ORDER BY m.merchant_id;

-- name: money_by_kind
SELECT account_kind, sum(item_count)::bigint, sum(debit_fen)::bigint, sum(credit_fen)::bigint, sum(fee_fen)::bigint
  FROM clearing_summary WHERE business_date = %(day)s GROUP BY account_kind ORDER BY account_kind;

-- name: offline_totals
SELECT coalesce(sum(confirmed_count), 0)::bigint, coalesce(sum(refused_count), 0)::bigint,
       coalesce(sum(adjusted_count), 0)::bigint, coalesce(sum(adjust_refused_count), 0)::bigint,
       coalesce(sum(pending_count), 0)::bigint
  FROM clearing_offline WHERE business_date = %(day)s;

-- name: float_lines
SELECT code, opening_fen, debit_fen, credit_fen, closing_fen FROM clearing_float WHERE business_date = %(day)s ORDER BY code;

-- name: last_closed
SELECT max(business_date) FROM business_day WHERE state = 2;

-- name: newest_with_files
SELECT max(business_date) FROM clearing_file;
