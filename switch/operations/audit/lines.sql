-- What the lines of a closed day's files are made of, %(day)s being the day. Nothing is formatted here.

-- name: closed_days
SELECT c.business_date, c.created_at, c.settlement_date, c.own_id, c.centre_id, c.acquirer_code
  FROM clearing_day c JOIN business_day b USING (business_date)
 WHERE b.state = 2 AND c.business_date BETWEEN %(first)s AND %(last)s
 ORDER BY c.business_date;

-- name: files
SELECT name, party, party_no, line_count, total_fen, upper(encode(sm3, 'hex')), size_bytes
  FROM clearing_file WHERE business_date = %(day)s ORDER BY ordinal;

-- name: listed_cards
-- 1: comes off, 2: comes on or changes its level.
SELECT h.version, h.base, to_char(w.published_at AT TIME ZONE 'UTC' + interval '8 hours', 'YYYYMMDD'), c.part, c.asn, c.level,
       to_char(c.at AT TIME ZONE 'UTC' + interval '8 hours', 'YYYYMMDD')
  FROM clearing_hot_list h
  JOIN hot_list_version w ON w.version = h.version
  LEFT JOIN LATERAL (
       SELECT 2 AS part, e.asn, e.level, v.published_at AS at
         FROM hot_list_entry e JOIN hot_list_version v ON v.version = e.from_version
        WHERE e.from_version <= h.version AND coalesce(e.until_version > h.version, true)
          AND NOT EXISTS (SELECT FROM hot_list_entry o WHERE o.asn = e.asn AND o.level = e.level AND o.from_version <= h.base
                             AND coalesce(o.until_version > h.base, true))
       UNION ALL
       SELECT 1, o.asn, 0, w.published_at
         FROM hot_list_entry o
        WHERE o.from_version <= h.base AND coalesce(o.until_version > h.base, true)
          AND NOT EXISTS (SELECT FROM hot_list_entry e WHERE e.asn = o.asn AND e.from_version <= h.version
                             AND coalesce(e.until_version > h.version, true))) AS c ON true
 WHERE h.business_date = %(day)s AND h.acquirer_id = %(party)s
 ORDER BY c.part, c.asn;

-- name: sent_again
SELECT name, original, upper(encode(sm3, 'hex')), size_bytes FROM clearing_resend WHERE of_date = %(day)s ORDER BY name;

-- name: signed
SELECT name, public_key, signature FROM file_signature
 WHERE name IN (SELECT name FROM clearing_file WHERE business_date = %(day)s UNION ALL SELECT name FROM clearing_resend WHERE of_date = %(day)s)
 ORDER BY name;

-- name: charges
-- Instants as digits of UTC+8: at is last digit of the year, day of the year, MMDDhhmmss. local_time and other: of an offline record the terminal's clock, and its ATC and PSAM serial.
SELECT c.merchant_no, to_char(c.at AT TIME ZONE 'UTC' + interval '8 hours', 'YDDDMMDDHH24MISS'), c.entry_no, m.merchant_id, t.terminal_id, c.batch_no, c.stan, c.rrn, coalesce(l.account_kind, c.account_kind, 0)::integer, c.pan, c.fen, to_char(c.local_time, 'YYYYMMDDHH24MISS'),
       c.kind, c.auth_code, c.entry_mode, m.category, m.acquirer_id, coalesce(c.original_stan, (w.record_serial %% 1000000)::integer, 0),
       coalesce(to_char(coalesce(c.original_at, w.at) AT TIME ZONE 'UTC' + interval '8 hours', 'MMDDHH24MISS'), '0000000000'),
       coalesce(c.original_kind, 0), c.other,
       r.rate_ppm, coalesce(r.minimum_fen, 0), r.cap_fen, coalesce(r.weight_issuer, 0), coalesce(r.weight_switch, 0),
       coalesce(r.weight_acquirer, 0), coalesce(l.issuer_id, %(own)s), coalesce(l.pan, c.pan), a.rate_ppm, a.minimum_fen, a.cap_fen, a.weight_issuer,
       a.weight_centre, a.weight_acquirer
  FROM (SELECT j.merchant_no, j.terminal_no, j.decided_at AS at, j.entry_no, j.batch_no, j.stan, j.rrn, (j.account_id %% 100)::integer AS account_kind, j.pan,
               j.effect_fen AS fen, j.decided_at AT TIME ZONE 'UTC' + interval '8 hours' AS local_time, j.kind::integer AS kind, j.auth_code, j.entry_mode,
               CASE WHEN j.kind IN (8, 10) THEN j.business_date ELSE coalesce(j.original_date, j.business_date) END AS rule_date, o.stan AS original_stan, o.decided_at AS original_at,
               o.kind::integer AS original_kind, '' AS other
          FROM journal j
          LEFT JOIN journal o ON o.business_date = j.original_date AND o.shard = j.shard AND o.entry_no = j.original_entry
         WHERE j.business_date = %(day)s AND j.effect_fen <> 0
        UNION ALL
        SELECT merchant_no, terminal_no, received_at, entry_no, batch_no, (record_serial %% 1000000)::integer, NULL, 50,
               substr(encode(substr(raw, 7, 10), 'hex'), 2), amount_fen, happened_at, 20, '', '072', coalesce(original_date, business_date),
               NULL, NULL, NULL, upper(encode(substr(raw, 29, 2) || substr(raw, 52, 4), 'hex'))
          FROM purse_record
         WHERE business_date = %(day)s AND result IN ('10', '00') AND amount_fen > 0 AND batch_no >= 0
        UNION ALL
        SELECT merchant_no, terminal_no, decided_at, entry_no, batch_no, (record_serial %% 1000000)::integer, NULL, 50,
               substr(encode(substr(raw, 7, 10), 'hex'), 2), amount_fen, happened_at, 20, '', '072', original_date,
               NULL, NULL, NULL, upper(encode(substr(raw, 29, 2) || substr(raw, 52, 4), 'hex'))
          FROM foreign_verdict
         WHERE business_date = %(day)s AND result = '00' AND amount_fen > 0) AS c
  JOIN clearing_merchant m ON m.business_date = %(day)s AND m.merchant_no = c.merchant_no
  JOIN terminal t ON t.terminal_no = c.terminal_no
  LEFT JOIN (SELECT entry_no, account_kind, issuer_id, pan FROM clearing_leg WHERE business_date = %(day)s
             UNION ALL SELECT entry_no, 50, issuer_id, NULL FROM foreign_verdict WHERE business_date = %(day)s) AS l ON l.entry_no = c.entry_no
  LEFT JOIN clearing_rule r
    ON r.business_date = %(day)s AND r.merchant_no = c.merchant_no AND r.account_kind = coalesce(l.account_kind, c.account_kind)
   AND r.rule_date = c.rule_date
  -- What cases moved about offline records: the trace and instant of those, and the date of another city's ride.
  LEFT JOIN (SELECT e.entry_no, coalesce(r.record_serial, v.record_serial) AS record_serial, coalesce(r.received_at, v.decided_at) AS at, v.happened_at::date AS rode_on
               FROM dispute_event e
               JOIN dispute_case k USING (case_no)
               LEFT JOIN purse_record r ON k.source = 2 AND r.entry_no = k.item_entry AND r.business_date = k.item_date
               LEFT JOIN foreign_verdict v ON k.source = 3 AND v.entry_no = k.item_entry
              WHERE e.business_date = %(day)s AND e.what = 'DONE' AND k.source IN (2, 3)) AS w ON c.kind BETWEEN 14 AND 17 AND w.entry_no = c.entry_no
  -- Other cities' cards (kind 50, owed by somebody) since days name their centre: by the tariff on the record's date, or nothing.
  LEFT JOIN LATERAL (
       SELECT coalesce(t.rate_ppm, 0) AS rate_ppm, coalesce(t.minimum_fen, 0) AS minimum_fen, t.cap_fen, coalesce(t.weight_issuer, 0) AS weight_issuer,
              coalesce(t.weight_centre, 0) AS weight_centre, coalesce(t.weight_acquirer, 1) AS weight_acquirer
         FROM clearing_day d
         LEFT JOIN interop_tariff t ON t.valid_from = (SELECT max(valid_from) FROM interop_tariff WHERE valid_from <= coalesce(w.rode_on, c.local_time::date))
        WHERE d.business_date = %(day)s AND d.interop_id IS NOT NULL AND l.account_kind = 50 AND l.issuer_id IS NOT NULL) AS a ON true
 WHERE %(member)s IN ('', m.acquirer_id, coalesce(l.issuer_id, %(own)s)) AND (%(entry)s = 0 OR c.entry_no = %(entry)s)
 ORDER BY CASE WHEN %(member)s = '' THEN c.merchant_no END, c.at, c.entry_no;

-- name: positions
SELECT institution_id, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen
  FROM clearing_position WHERE business_date = %(day)s ORDER BY ordinal;

-- name: quick
SELECT m.merchant_id, o.confirmed_count, o.confirmed_fen, o.refused_count, o.refused_fen, o.adjusted_count, o.adjusted_fen,
       o.adjust_refused_count, o.adjust_refused_fen,
       (SELECT coalesce(sum(s.fee_fen), 0)::bigint FROM clearing_summary s
         WHERE s.business_date = %(day)s AND s.merchant_no = o.merchant_no AND s.account_kind = 50)
       - (SELECT coalesce(sum(x.fee_fen), 0)::bigint FROM clearing_adjusted x WHERE x.business_date = %(day)s AND x.merchant_no = o.merchant_no)
  FROM clearing_offline o JOIN clearing_merchant m ON m.business_date = %(day)s AND m.merchant_no = o.merchant_no
 WHERE o.business_date = %(day)s AND m.acquirer_id = %(party)s ORDER BY m.merchant_id;

-- name: came
SELECT count(*), coalesce(sum(r.amount_fen), 0)::bigint
  FROM purse_record r JOIN clearing_merchant m ON m.business_date = %(day)s AND m.merchant_no = r.merchant_no
 WHERE r.business_date = %(day)s AND r.original_entry IS NULL AND m.acquirer_id = %(party)s AND r.batch_no <> 0;

-- name: arrived
SELECT name, line_count, total_fen, status
  FROM received_file WHERE business_date = %(day)s AND sender_id = %(party)s AND left(name, 2) = 'XF' ORDER BY file_no;

-- name: listed
-- source: the file, or nothing for the list of what came without one.
SELECT x.taken_on, l.source_file, l.source_line, x.result, coalesce(m.merchant_id, '000000000000000'), coalesce(t.terminal_id, '00000000'), x.raw,
       x.atc, x.psam_serial, x.balance_fen, x.amount_fen, x.happened_at, x.record_kind
  FROM (SELECT r.business_date AS taken_on, r.entry_no AS taken_entry, coalesce(v.result, r.result) AS result, r.merchant_no, r.terminal_no, r.raw, r.atc,
               r.psam_serial, r.balance_fen, r.amount_fen, r.happened_at, r.record_kind
          FROM purse_record r
          LEFT JOIN purse_record v ON v.original_entry = r.entry_no AND v.original_date = r.business_date AND v.business_date = r.business_date
         WHERE r.business_date = %(day)s AND r.original_entry IS NULL
        UNION ALL
        SELECT original_date, original_entry, result, merchant_no, terminal_no, raw, atc, psam_serial, balance_fen, amount_fen, happened_at,
               record_kind
          FROM purse_record WHERE business_date = %(day)s AND original_date < %(day)s
        UNION ALL
        SELECT original_date, original_entry, result, merchant_no, terminal_no, raw, atc, psam_serial, balance_fen, amount_fen, happened_at,
               record_kind
          FROM foreign_verdict WHERE business_date = %(day)s) AS x
  LEFT JOIN clearing_merchant m ON m.business_date = %(day)s AND m.merchant_no = x.merchant_no
  LEFT JOIN terminal t ON t.terminal_no = x.terminal_no
  JOIN clearing_source_line l ON l.business_date = x.taken_on AND l.entry_no = x.taken_entry
 WHERE x.result <> '10' AND coalesce(l.acquirer_id, m.acquirer_id) = %(party)s
 ORDER BY x.taken_on, l.source_file NULLS FIRST, l.source_line;

-- name: rides
SELECT m.merchant_id, to_char(t.ride_date, 'YYYYMMDD'), t.industry, t.line, t.single_count, t.complete_count, t.incomplete_count,
       t.entry_count, t.open_count, t.transfer_count, t.paid_fen, t.maximum_fen, t.full_fen, t.transfer_discount_fen, t.other_discount_fen
  FROM clearing_transit t JOIN clearing_merchant m ON m.business_date = %(day)s AND m.merchant_no = t.merchant_no
 WHERE t.business_date = %(day)s AND m.merchant_id = %(party)s
 ORDER BY t.ride_date, t.industry, t.line;

-- name: forwarded
SELECT r.raw
  FROM purse_record r
  JOIN clearing_merchant m ON m.business_date = %(day)s AND m.merchant_no = r.merchant_no
  JOIN institution i ON i.institution_id = m.acquirer_id
 WHERE r.business_date = %(day)s AND r.result = '11' AND i.role <> 'CITY'
 ORDER BY r.received_at, r.entry_no;

-- name: reports
SELECT r.business_date, r.name, encode(r.sm3, 'hex'), r.size_bytes
  FROM clearing_report r JOIN business_day b USING (business_date)
 WHERE b.state = 2 AND r.sm3 IS NOT NULL AND r.business_date BETWEEN %(first)s AND %(last)s
 ORDER BY r.business_date, r.ordinal;

-- name: answered
-- Lines of a file of the interop centre, as they were taken, with what became of them by the end of the day.
SELECT n.line, r.raw, coalesce(v.result, r.result), to_char(coalesce(v.business_date, r.business_date), 'YYYYMMDD')
  FROM received_chunk k
 CROSS JOIN LATERAL generate_series(k.first_line, k.first_line + k.line_count - 1) AS n (line)
  JOIN purse_record r ON r.business_date = k.business_date AND r.entry_no = k.first_entry + n.line - k.first_line AND r.original_entry IS NULL
  LEFT JOIN purse_record v ON v.original_entry = r.entry_no AND v.original_date = r.business_date AND v.business_date <= %(day)s
 WHERE k.file_no = %(file_no)s
 ORDER BY n.line;

-- name: decided
-- Grey records of files that had ended before the day, and were decided on it.
SELECT row_number() OVER (ORDER BY v.original_date, v.original_entry), v.raw, v.result, to_char(v.business_date, 'YYYYMMDD')
  FROM purse_record v
  JOIN received_chunk k ON v.original_entry >= k.first_entry AND v.original_entry < k.first_entry + k.line_count AND k.business_date = v.original_date
  JOIN received_file f ON f.file_no = k.file_no AND f.business_date < %(day)s AND f.sender_id = %(party)s
 WHERE v.business_date = %(day)s AND v.batch_no = -1 AND v.original_entry IS NOT NULL
 ORDER BY 1;

-- name: disputed
-- What an ER says to a member, in its order: decisions, denials, refused lines. line_date, line_entry: whose line in CM it shows; or the line that came.
WITH said AS (
    SELECT 1 AS part, e.at, e.case_no::bigint AS a, e.seq AS b,
           CASE WHEN c.member_id = %(party)s THEN c.member_case ELSE lpad(c.case_no::text, 16, '0') END AS case_text, e.action,
           CASE WHEN c.issuer_id = %(party)s THEN 1 ELSE -1 END * CASE e.action WHEN '01' THEN 1 WHEN '04' THEN 1 WHEN '03' THEN 0 ELSE -1 END * e.amount_fen AS fen,
           e.reason, CASE WHEN c.item_entry IS NULL OR o.effect_fen = 0 THEN e.business_date ELSE c.item_date END AS line_date,
           CASE WHEN c.item_entry IS NULL OR o.effect_fen = 0 THEN e.entry_no ELSE c.item_entry END AS line_entry,
           to_char(coalesce(c.item_date, e.business_date), 'YYYYMMDD') AS original_date, NULL AS came
      FROM dispute_event e
      JOIN dispute_case c USING (case_no)
      LEFT JOIN journal o ON c.source = 1 AND o.business_date = c.original_date AND o.shard = c.shard AND o.entry_no = c.original_entry
      LEFT JOIN clearing_merchant m ON m.merchant_no = c.merchant_no
       AND m.business_date = CASE WHEN c.item_entry IS NULL OR o.effect_fen = 0 THEN e.business_date ELSE c.item_date END
     WHERE e.business_date = %(day)s AND e.what = 'DONE' AND e.action <> '08' AND (%(party)s = c.issuer_id OR %(party)s = coalesce(m.acquirer_id, c.acquirer_id))
    UNION ALL
    SELECT 2, e.at, e.case_no, e.seq, CASE WHEN c.member_id = %(party)s THEN c.member_case ELSE lpad(c.case_no::text, 16, '0') END, e.action, 0, e.reason,
           c.item_date, c.item_entry, to_char(c.item_date, 'YYYYMMDD'), NULL
      FROM dispute_event e JOIN dispute_case c USING (case_no)
     WHERE e.business_date = %(day)s AND e.what = 'DENIED' AND e.actor = 'member ' || %(party)s
    UNION ALL
    SELECT 3, NULL, file_no, line_no, member_case, action, 0, refusal, NULL, NULL, original_date, original_line
      FROM dispute_received WHERE business_date = %(day)s AND refusal <> '' AND member_id = %(party)s
)
SELECT case_text, action, fen::bigint, reason, line_date, line_entry, original_date, came FROM said ORDER BY part, at, a, b;
