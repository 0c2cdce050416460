-- Offline records and purses. A record is parsed again from its 96 bytes; a card is shown by its last four digits. Transaction
-- authentication codes are not verified here: that takes the keys of the vault.

-- name: record_row
-- says: the columns of an offline record are what its bytes say, and its result is one that there is
-- rows: purse_record
SELECT 'purse_record', format('entry %%s of %%s', entry_no, business_date), f.fault,
       format('result %%s, kind %%s, %%s fen of %%s, ATC %%s, PSAM serial %%s', result, record_kind, amount_fen, balance_fen, atc, psam_serial)
  FROM purse_record
 CROSS JOIN LATERAL (SELECT encode(raw, 'hex') AS hex) AS h
 CROSS JOIN LATERAL (SELECT CASE
       WHEN result NOT IN ('10', '00', '01', '02', '03', '04', '05', '06', '07', '08', '11', '94') THEN 'a result code'
       WHEN (result IN ('00', '94')) <> (original_entry IS NOT NULL) THEN '00 and 94 for adjudications only'
       WHEN (original_entry IS NULL) <> (original_date IS NULL) THEN 'date and entry of the original, or neither'
       WHEN record_kind IS NULL AND (result <> '02' OR num_nonnulls(card, amount_fen, balance_fen, psam, psam_serial, record_serial,
                                                                    happened_at, atc, card_no, credit_code, credit_owner) > 0)
            THEN 'result 02 and no columns of a record that cannot be read'
       WHEN record_kind IS NULL THEN NULL
       WHEN length(raw) <> 96 THEN '96 bytes'
       WHEN record_kind IS DISTINCT FROM get_byte(raw, 1) THEN 'kind ' || get_byte(raw, 1)
       WHEN amount_fen IS DISTINCT FROM ('x' || substr(hex, 61, 8))::bit(32)::bigint
            THEN ('x' || substr(hex, 61, 8))::bit(32)::bigint || ' fen'
       WHEN balance_fen IS DISTINCT FROM ('x' || substr(hex, 69, 8))::bit(32)::bigint
            THEN 'a balance before of ' || ('x' || substr(hex, 69, 8))::bit(32)::bigint || ' fen'
       WHEN atc IS DISTINCT FROM get_byte(raw, 28) * 256 + get_byte(raw, 29) THEN 'ATC ' || get_byte(raw, 28) * 256 + get_byte(raw, 29)
       WHEN psam IS DISTINCT FROM substr(hex, 91, 12)::bigint THEN 'PSAM ' || substr(hex, 91, 12)
       WHEN psam_serial IS DISTINCT FROM ('x' || substr(hex, 103, 8))::bit(32)::bigint
            THEN 'PSAM serial ' || ('x' || substr(hex, 103, 8))::bit(32)::bigint
       WHEN record_serial IS DISTINCT FROM ('x' || substr(hex, 119, 8))::bit(32)::bigint
            THEN 'record serial ' || ('x' || substr(hex, 119, 8))::bit(32)::bigint
       WHEN happened_at IS DISTINCT FROM to_timestamp(substr(hex, 77, 14), 'YYYYMMDDHH24MISS')::timestamp
            THEN 'date and time ' || substr(hex, 77, 14)
       WHEN (CASE WHEN card < 0 THEN card + 18446744073709551616 ELSE card END) IS DISTINCT FROM substr(hex, 14, 19)::numeric
            THEN 'the card ending in ' || substr(hex, 29, 4)
       WHEN result IN ('10', '00') AND record_kind <> 2 AND num_nonnulls(card_no, credit_code, credit_owner) < 3
            THEN 'purse and creditor of an accepted record'
       WHEN credit_code NOT IN (2101, 2102) THEN '2101 or 2102 credited'
       -- Not of a 02: that may be a PSAM in the hands of another merchant, and nobody is paid.
       WHEN result <> '02' AND credit_code = 2101 AND credit_owner <> merchant_no THEN 'merchant ' || merchant_no || ' credited'
       WHEN result <> '02' AND credit_code = 2102 AND batch_no >= 0 AND credit_owner <> substr(hex, 127, 8)::bigint THEN 'acquirer ' || substr(hex, 127, 8) || ' credited'
       WHEN record_kind = 2 AND amount_fen <> 0 THEN 'no amount of a lock notice'
       END AS fault) AS f
 WHERE business_date BETWEEN %(first)s AND %(last)s AND f.fault IS NOT NULL

-- name: record_parties
-- says: a record's purse is that of its card, in its shard; terminal and merchant are registered, but of a record from a file that is refused for its PSAM
-- rows: purse_record, card_route, purse_stray
SELECT 'purse_record', format('entry %%s of %%s', p.entry_no, p.business_date),
       CASE WHEN t.terminal_no IS NULL OR m.merchant_no IS NULL THEN 'a registered terminal and merchant'
            ELSE format('card_no %%s in shard %%s', coalesce(r.card_no, s.card_no), coalesce(r.shard, s.shard)) END,
       format('card_no %%s in shard %%s, terminal_no %%s, merchant_no %%s', p.card_no, p.shard, p.terminal_no, p.merchant_no)
  FROM purse_record p
  LEFT JOIN terminal t ON t.terminal_no = p.terminal_no
  LEFT JOIN merchant m ON m.merchant_no = p.merchant_no
  LEFT JOIN card_route r ON r.pan = substr(encode(substr(p.raw, 7, 10), 'hex'), 2)
  LEFT JOIN purse_stray s ON s.card = p.card
 WHERE p.business_date BETWEEN %(first)s AND %(last)s
   AND (((t.terminal_no IS NULL OR m.merchant_no IS NULL)
         AND NOT (p.batch_no = 0 AND p.result = '02' AND p.terminal_no = 0 AND coalesce(m.merchant_no, 0) = p.merchant_no)
        AND NOT (p.batch_no = -1 AND p.terminal_no = 0 AND p.merchant_no = 0))  -- by the interop centre: own_cards_elsewhere
        OR (p.card_no IS NOT NULL
            AND ((p.card_no, p.shard) IS DISTINCT FROM (r.card_no, r.shard))
            AND ((p.card_no, p.shard) IS DISTINCT FROM (s.card_no, s.shard))))

-- name: record_time
-- says: an offline record was taken inside its business day, and before the day was sealed
-- rows: purse_record, business_day
SELECT 'purse_record', format('entry %%s of %%s', p.entry_no, p.business_date),
       coalesce(format('from %%s until before %%s', d.begins_at, d.ends_at), 'a business day'), p.received_at::text
  FROM purse_record p
  LEFT JOIN business_day d ON d.business_date = p.business_date
 WHERE p.business_date BETWEEN %(first)s AND %(last)s AND p.original_entry IS NULL
   AND (d.business_date IS NULL OR p.received_at < d.begins_at OR p.received_at >= least(d.ends_at, d.sealed_at))

-- name: record_answer
-- says: an upload was answered with the results of its records, and its amount is that of those taken (10, 04, 11)
-- rows: journal, purse_record
WITH upload AS (
    SELECT shard, business_date, terminal_no, batch_no, decided_at, entry_no, amount_fen,
           CASE WHEN answer = '00' AND extra IS NOT NULL THEN convert_from(extra, 'UTF8')::jsonb END AS extra
      FROM journal
     WHERE kind = 20 AND answer = '00' AND business_date BETWEEN %(first)s AND %(last)s
), spoken AS (
    SELECT entry_no, business_date, terminal_no, batch_no, received_at, encode(substr(raw, 60, 4) || result::bytea, 'hex') AS part,
           CASE WHEN result IN ('10', '04', '11') THEN amount_fen END AS taken_fen
      FROM purse_record
     WHERE original_entry IS NULL AND batch_no > 0 AND business_date BETWEEN %(first)s AND %(last)s
), placed AS (
    -- An upload's number follows those of its records; another upload of the same transaction comes before or after all of them.
    SELECT business_date, terminal_no, batch_no, at, entry_no, part, taken_fen,
           min(entry_no) FILTER (WHERE part IS NULL)
               OVER (PARTITION BY business_date, terminal_no, batch_no, at ORDER BY entry_no ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING)
               AS upload_no
      FROM (SELECT business_date, terminal_no, batch_no, received_at AS at, entry_no, part, taken_fen FROM spoken
            UNION ALL
            SELECT business_date, terminal_no, batch_no, decided_at, entry_no, NULL, NULL FROM upload) AS every
), summed AS (
    SELECT upload_no, min(entry_no) AS first_no, count(part) AS records, count(taken_fen) AS taken, coalesce(sum(taken_fen), 0) AS fen,
           coalesce(string_agg(part, '' ORDER BY entry_no), '') AS answer
      FROM placed GROUP BY upload_no
)
SELECT CASE WHEN u.entry_no IS NULL THEN 'purse_record' ELSE 'journal' END, 'entry ' || coalesce(u.entry_no, s.first_no),
       CASE WHEN u.entry_no IS NULL THEN 'an upload that brought this record'
            ELSE format('%%s records, %%s taken, %%s fen, their results', s.records, s.taken, s.fen) END,
       CASE WHEN u.entry_no IS NULL THEN 'none'
            ELSE format('%%s records, %%s taken, %%s fen%%s', u.extra ->> 'n', u.extra ->> 'taken', u.amount_fen,
                        CASE WHEN substr(u.extra ->> '62', (u.extra ->> 'head')::integer * 2 + 1) IS DISTINCT FROM s.answer
                             THEN ', other results' ELSE '' END) END
  FROM summed s
  LEFT JOIN upload u ON u.entry_no = s.upload_no
 WHERE u.entry_no IS NULL
    OR (u.amount_fen, (u.extra ->> 'n')::bigint, (u.extra ->> 'taken')::bigint,
        substr(u.extra ->> '62', (u.extra ->> 'head')::integer * 2 + 1))
       IS DISTINCT FROM (s.fen, s.records, s.taken, s.answer)

-- name: batch_serials
-- says: each batch that came under a serial of its terminal is one approved upload, and each such upload has its serial
-- rows: purse_batch, journal
SELECT CASE WHEN b.serial IS NULL THEN 'journal' ELSE 'purse_batch' END,
       CASE WHEN b.serial IS NULL THEN 'entry ' || j.entry_no ELSE format('terminal_no %%s, serial %%s', b.terminal_no, b.serial) END,
       CASE WHEN b.serial IS NULL THEN 'a batch serial' ELSE 'an approved upload of that day and batch' END, 'none'
  FROM (SELECT * FROM purse_batch WHERE business_date BETWEEN %(first)s AND %(last)s) AS b
  FULL JOIN (SELECT * FROM journal WHERE kind = 20 AND answer = '00' AND stan <= 0 AND business_date BETWEEN %(first)s AND %(last)s) AS j
    ON j.business_date = b.business_date AND j.terminal_no = b.terminal_no AND j.batch_no = b.batch_no
   AND j.stan = -(b.serial & 2147483647)::int
 WHERE b.serial IS NULL OR j.entry_no IS NULL

-- name: used_counters
-- says: each accepted record uses up its card's counter, once
-- rows: purse_atc, purse_record
WITH accepted AS (
    SELECT entry_no, business_date, card, atc, amount_fen, balance_fen, substr(raw, 39, 21) AS mark
      FROM purse_record WHERE (result = '10' AND record_kind <> 2) OR result = '00'
)
SELECT 'purse_atc', format('card ending in %%s, ATC %%s, entry %%s',
              right((CASE WHEN coalesce(g.card, a.card) < 0 THEN coalesce(g.card, a.card) + 18446744073709551616
                          ELSE coalesce(g.card, a.card) END)::text, 4), coalesce(g.atc, a.atc), coalesce(g.entry_no, a.entry_no)),
       coalesce(format('%%s fen of %%s, entry %%s of %%s', a.amount_fen, a.balance_fen, a.entry_no, a.business_date), 'no row'),
       CASE WHEN g.entry_no IS NULL THEN 'no row'
            ELSE format('%%s fen of %%s, entry %%s of %%s%%s', g.amount_fen, g.balance_fen, g.entry_no, g.business_date,
                        CASE WHEN g.mark <> a.mark THEN ', another mark' ELSE '' END) END
  FROM purse_atc g
  FULL JOIN accepted a ON a.card = g.card AND a.atc = g.atc
 WHERE (g.entry_no, g.business_date, g.amount_fen, g.balance_fen, g.mark)
       IS DISTINCT FROM (a.entry_no, a.business_date, a.amount_fen, a.balance_fen, a.mark)

-- name: used_serials
-- says: each accepted record uses up its PSAM's serial, once
-- rows: purse_serial, purse_record
WITH accepted AS (
    SELECT entry_no, card, atc, psam, psam_serial
      FROM purse_record WHERE (result = '10' AND record_kind <> 2) OR result = '00'
)
SELECT 'purse_serial', format('PSAM %%s, serial %%s', lpad(coalesce(g.psam, a.psam)::text, 12, '0'), coalesce(g.psam_serial, a.psam_serial)),
       CASE WHEN a.psam IS NULL THEN 'no row'
            ELSE format('entry %%s, ATC %%s', (SELECT min(x.entry_no) FROM accepted x WHERE x.psam = a.psam AND x.psam_serial = a.psam_serial),
                        a.atc) || CASE WHEN a.times > 1 THEN ' alone' ELSE '' END END,
       CASE WHEN g.psam IS NULL THEN 'no row' WHEN a.times > 1 THEN a.times || ' accepted records'
            ELSE 'ATC ' || g.atc || CASE WHEN g.card <> a.card THEN ' of another card' ELSE '' END END
  FROM purse_serial g
  FULL JOIN (SELECT psam, psam_serial, min(card) AS card, min(atc) AS atc, count(*) AS times
               FROM accepted GROUP BY psam, psam_serial) AS a ON a.psam = g.psam AND a.psam_serial = g.psam_serial
 WHERE (g.card, g.atc) IS DISTINCT FROM (a.card, a.atc) OR a.times > 1

-- name: waiting_records
-- says: grey, foreign and lock records wait as they came, and a verdict is the adjudication's or the other city's
-- rows: purse_waiting, purse_record
WITH kept AS (
    SELECT r.entry_no, r.business_date, r.card, r.atc, r.amount_fen, r.balance_fen, substr(r.raw, 39, 21) AS mark, r.result,
           coalesce(v.result, CASE WHEN f.result = '00' THEN '00' WHEN f.result IS NOT NULL THEN '94' END) AS verdict, coalesce(v.business_date, f.business_date) AS decided_on
      FROM purse_record r
      LEFT JOIN purse_record v ON v.original_entry = r.entry_no AND v.original_date = r.business_date
      LEFT JOIN foreign_verdict f ON f.original_entry = r.entry_no
     WHERE r.result IN ('04', '11') OR (r.result = '10' AND r.record_kind = 2)
)
SELECT 'purse_waiting', format('entry %%s, ATC %%s', coalesce(w.entry_no, k.entry_no), coalesce(w.atc, k.atc)),
       coalesce(format('result %%s, %%s fen of %%s, %%s, verdict %%s on %%s', k.result, k.amount_fen, k.balance_fen, k.business_date,
                       coalesce(k.verdict, 'none'), coalesce(k.decided_on::text, '-')), 'no row'),
       CASE WHEN w.entry_no IS NULL THEN 'no row'
            ELSE format('result %%s, %%s fen of %%s, %%s, verdict %%s on %%s', w.result, w.amount_fen, w.balance_fen, w.business_date,
                        coalesce(w.verdict, 'none'), coalesce(w.decided_on::text, '-'))
                 || CASE WHEN w.card <> k.card OR w.mark <> k.mark THEN ', another card or mark' ELSE '' END END
  FROM purse_waiting w
  FULL JOIN kept k ON k.entry_no = w.entry_no
 WHERE (w.business_date, w.card, w.atc, w.amount_fen, w.balance_fen, w.mark, w.result, w.verdict, w.decided_on)
       IS DISTINCT FROM (k.business_date, k.card, k.atc, k.amount_fen, k.balance_fen, k.mark, k.result, k.verdict, k.decided_on)

-- name: adjudications
-- says: an adjudication is one of a grey record of the same bytes, or of a refused one that a case accepted, once, on its day or later
-- rows: purse_record
SELECT 'purse_record', format('entry %%s of %%s', v.entry_no, v.business_date), 'the one adjudication of a grey record (04), or of one that a case accepted',
       CASE WHEN r.entry_no IS NULL THEN 'no such record' ELSE format('of entry %%s, result %%s', r.entry_no, r.result) END
  FROM (SELECT *, count(*) OVER (PARTITION BY original_entry, original_date) AS times
          FROM purse_record WHERE original_entry IS NOT NULL) AS v
  LEFT JOIN purse_record r ON r.entry_no = v.original_entry AND r.business_date = v.original_date
 WHERE v.times > 1 OR r.entry_no IS NULL OR r.raw <> v.raw
    OR NOT (r.result = '04' OR (r.result IN ('01', '02') AND v.result = '00'
                                AND EXISTS (SELECT FROM dispute_event e WHERE e.entry_no = v.entry_no AND e.what = 'DONE' AND e.action = '07')))
    OR v.business_date < v.original_date
    OR (r.card_no, r.shard, r.merchant_no, r.terminal_no, r.batch_no, r.amount_fen)
       IS DISTINCT FROM (v.card_no, v.shard, v.merchant_no, v.terminal_no, v.batch_no, v.amount_fen)

-- name: quarantine
-- says: a record of result 02 is in quarantine as it came, or an alarm says which counter it collided with
-- rows: purse_quarantine, purse_alarm, purse_record
SELECT CASE WHEN q.entry_no IS NULL THEN 'purse_record' ELSE 'purse_quarantine' END, 'entry ' || coalesce(q.entry_no, r.entry_no),
       CASE WHEN r.entry_no IS NULL THEN 'no row' WHEN a.entry_no IS NOT NULL THEN 'an alarm instead'
            ELSE format('the record, of terminal_no %%s at %%s', r.terminal_no, r.received_at) END,
       CASE WHEN q.entry_no IS NULL THEN 'neither quarantine nor alarm'
            ELSE format('terminal_no %%s at %%s%%s', q.terminal_no, q.received_at,
                        CASE WHEN q.raw <> r.raw THEN ', other bytes' ELSE '' END) END
  FROM purse_quarantine q
  FULL JOIN (SELECT entry_no, terminal_no, received_at, raw FROM purse_record WHERE result = '02') AS r ON r.entry_no = q.entry_no
  LEFT JOIN purse_alarm a ON a.entry_no = r.entry_no AND a.kind IN ('ATC_COLLISION', 'PSAM_COLLISION')
 WHERE CASE WHEN a.entry_no IS NOT NULL THEN q.entry_no IS NOT NULL
            ELSE (q.terminal_no, q.received_at, q.raw) IS DISTINCT FROM (r.terminal_no, r.received_at, r.raw) END

-- name: alarms
-- says: an alarm is about a record that is there, of its card and day, or about a hole that had been open for 30 days
-- rows: purse_alarm, purse_record, purse_gap
SELECT 'purse_alarm', format('alarm_no %%s', a.alarm_no),
       CASE WHEN a.gap_no IS NULL THEN 'a record of this card and day'
            ELSE format('a gap that was reported at %%s, after 30 days', g.reported_at) END,
       CASE WHEN a.gap_no IS NOT NULL THEN format('%%s, gap_no %%s opened at %%s, alarm at %%s', a.kind, a.gap_no, g.opened_at, a.at)
            WHEN r.entry_no IS NULL THEN format('%%s, no entry %%s', a.kind, a.entry_no)
            ELSE format('%%s, entry %%s of %%s', a.kind, r.entry_no, r.business_date) END
  FROM purse_alarm a
  LEFT JOIN purse_record r ON r.entry_no = a.entry_no
  LEFT JOIN purse_gap g ON g.gap_no = a.gap_no
 WHERE CASE WHEN a.gap_no IS NULL THEN r.entry_no IS NULL OR (a.card, a.business_date) IS DISTINCT FROM (r.card, r.business_date)
            ELSE a.entry_no IS NOT NULL OR g.gap_no IS NULL OR a.kind <> 'GAP_OVERDUE' OR g.reported_at IS DISTINCT FROM a.at
                 OR a.at < g.opened_at + interval '30 days' OR a.card IS DISTINCT FROM CASE g.kind WHEN 1 THEN g.owner END END

-- name: reported_gaps
-- says: a hole that is marked as reported has an alarm of that instant about its counter
-- rows: purse_gap, purse_alarm
SELECT 'purse_gap', 'gap_no ' || g.gap_no, 'an alarm of that instant about its counter',
       format('reported at %%s, missing %%s', g.reported_at, g.missing)
  FROM purse_gap g
 WHERE g.reported_at IS NOT NULL
   AND NOT EXISTS (SELECT FROM purse_gap w JOIN purse_alarm a ON a.gap_no = w.gap_no
                    WHERE w.kind = g.kind AND w.owner = g.owner AND a.at = g.reported_at)

-- name: alarm_notes
-- says: what people said about an alarm came after it, by somebody, with a reason, and opens and closes it by turns
-- rows: purse_alarm_note, purse_alarm
SELECT 'purse_alarm_note', format('note_no %%s', n.note_no),
       CASE WHEN a.alarm_no IS NULL THEN 'an alarm of this number'
            WHEN n.acknowledged = n.before THEN CASE WHEN n.before THEN 'opened again' ELSE 'acknowledged' END
            ELSE format('a name, a reason, not before %%s', greatest(a.at, n.said_at)) END,
       format('alarm_no %%s, %%s at %%s by %%s', n.alarm_no, CASE WHEN n.acknowledged THEN 'acknowledged' ELSE 'opened again' END, n.at,
              CASE WHEN n.actor = '' THEN 'nobody' ELSE n.actor END)
  FROM (SELECT *, lag(acknowledged, 1, false) OVER told AS before, lag(at) OVER told AS said_at
          FROM purse_alarm_note WINDOW told AS (PARTITION BY alarm_no ORDER BY note_no)) AS n
  LEFT JOIN purse_alarm a ON a.alarm_no = n.alarm_no
 WHERE a.alarm_no IS NULL OR n.acknowledged = n.before OR n.at < a.at OR n.at < n.said_at OR n.at > clock_timestamp()
    OR n.actor = '' OR n.reason = ''

-- name: purses
-- says: the shadow of a purse is what was loaded and, behind the watermark, spent; every purse with money has a card
-- rows: purse, posting, purse_record
WITH loaded AS (
    SELECT shard, owner, sum(fen) AS fen
      FROM (SELECT shard, credit_owner AS owner, amount_fen AS fen FROM posting WHERE credit_code = 2002
            UNION ALL
            SELECT shard, debit_owner, -amount_fen FROM posting WHERE debit_code = 2002) AS side
     GROUP BY shard, owner
), spent AS (
    SELECT r.card_no, sum(r.amount_fen) AS fen
      FROM purse_record r JOIN purse_watermark w ON r.txid < w.folded_to
     WHERE r.result IN ('10', '00')
     GROUP BY r.card_no
)
SELECT CASE WHEN p.card_no IS NULL THEN 'posting' ELSE 'purse' END,
       format('card_no %%s in shard %%s', coalesce(p.card_no, l.owner), coalesce(p.shard, l.shard)),
       CASE WHEN p.card_no IS NULL THEN 'a purse'
            ELSE format('loaded %%s, spent %%s, balance %%s fen', coalesce(l.fen, 0), coalesce(s.fen, 0), coalesce(l.fen, 0) - coalesce(s.fen, 0))
       END,
       CASE WHEN p.card_no IS NULL THEN format('none, and %%s fen loaded', l.fen)
            ELSE format('loaded %%s, spent %%s, balance %%s fen', p.loaded_fen, p.spent_fen, p.balance_fen) END
  FROM purse p
  FULL JOIN loaded l ON l.shard = p.shard AND l.owner = p.card_no
  LEFT JOIN spent s ON s.card_no = p.card_no
 WHERE p.card_no IS NULL OR p.loaded_fen <> coalesce(l.fen, 0) OR p.spent_fen <> coalesce(s.fen, 0)
    OR p.balance_fen <> p.loaded_fen - p.spent_fen

-- name: purse_cards
-- says: a purse is that of its card, and its counters are ones that a card can have
-- rows: purse, card_route, purse_stray
SELECT 'purse', format('card_no %%s in shard %%s', p.card_no, p.shard),
       CASE WHEN r.card_no IS NULL AND s.card_no IS NULL THEN 'a card of this number'
            ELSE format('shard %%s, the serial number of its card, counters up to 65535', coalesce(r.shard, s.shard)) END,
       format('shard %%s, serial number ending in %%s, ATC %%s offline and %%s online', p.shard, right(p.asn, 4), p.next_atc, p.online_atc)
  FROM purse p
  LEFT JOIN card_route r ON r.card_no = p.card_no
  LEFT JOIN purse_stray s ON s.card_no = p.card_no
 WHERE CASE WHEN r.card_no IS NULL THEN s.card_no IS NULL OR s.shard <> p.shard
            ELSE r.shard <> p.shard OR p.asn <> lpad(r.pan, 20, '0') END
    OR NOT p.next_atc BETWEEN 0 AND 65536 OR NOT p.online_atc BETWEEN 0 AND 65535

-- name: float_identity
-- says: the purse float 2002 is the sum of all shadows, less what is not folded yet and what cards without a purse spent
-- rows: posting, purse, purse_record
SELECT 'purse', 'all', format('2002 holds %%s fen', l.fen - r.fen),
       format('shadows of %%s fen, %%s fen spent ahead of the watermark or by cards without a purse', p.fen, r.fen - p.spent_fen)
  FROM (SELECT coalesce(sum(CASE WHEN credit_code = 2002 THEN amount_fen ELSE 0 END - CASE WHEN debit_code = 2002 THEN amount_fen ELSE 0 END), 0)
               AS fen FROM posting) AS l,
       (SELECT coalesce(sum(amount_fen), 0) AS fen FROM purse_record WHERE result IN ('10', '00')) AS r,
       (SELECT coalesce(sum(balance_fen), 0) AS fen, coalesce(sum(spent_fen), 0) AS spent_fen FROM purse) AS p
 WHERE l.fen - r.fen <> p.fen - (r.fen - p.spent_fen)

-- name: sequences
-- says: of each counter everything from where it began to the next number has come, but what is noted as missing
-- rows: purse_sequence, purse_record, purse_batch
WITH came AS MATERIALIZED (
    SELECT n.kind, n.owner, n.number
      FROM purse_record r
      JOIN purse_watermark w ON r.txid < w.folded_to
     CROSS JOIN LATERAL (
           SELECT 1 AS kind, r.card AS owner, r.atc::bigint AS number WHERE r.result IN ('10', '00') AND r.record_kind <> 2
           UNION ALL
           SELECT 2, r.psam, r.psam_serial WHERE r.original_entry IS NULL AND r.record_kind IS NOT NULL AND r.result <> '02' AND r.batch_no >= 0
           UNION ALL
           SELECT 3, r.terminal_no, r.record_serial
            WHERE r.original_entry IS NULL AND r.record_kind IS NOT NULL AND r.terminal_no <> 0) AS n
    UNION ALL
    SELECT 4, b.terminal_no, b.serial FROM purse_batch b JOIN purse_watermark w ON b.txid < w.folded_to
), noted AS (
    SELECT DISTINCT ON (subject) subject, (change -> 'after' ->> 'purse_offline_atc')::bigint AS begins
      FROM registry_change WHERE change -> 'after' ? 'purse_offline_atc' ORDER BY subject, change_no
), got AS (
    SELECT c.kind, c.owner, c.numbers, c.lowest, c.highest, r.card_no IS NOT NULL AND t.card IS NULL AS registered, n.begins
      FROM (SELECT kind, owner, range_agg(int8range(number, number + 1)) AS numbers, min(number) AS lowest, max(number) AS highest
              FROM came GROUP BY kind, owner) AS c
      LEFT JOIN card_route r ON c.kind = 1
       AND r.pan = lpad((CASE WHEN c.owner < 0 THEN c.owner + 18446744073709551616 ELSE c.owner END)::text, 19, '0')
      LEFT JOIN purse_stray t ON c.kind = 1 AND t.card = c.owner
      LEFT JOIN noted n ON n.subject = 'card ' || r.card_no
), due AS (
    -- A card that was registered before its records came begins where the registry says; from older versions nothing says where that was.
    SELECT kind, owner, numbers, highest, CASE WHEN registered THEN begins ELSE lowest END AS first_no FROM got
)
SELECT 'purse_sequence', format('kind %%s, %%s', coalesce(s.kind, g.kind),
              CASE coalesce(s.kind, g.kind) WHEN 1 THEN 'card ending in ' || right((CASE WHEN coalesce(s.owner, g.owner) < 0
                   THEN coalesce(s.owner, g.owner) + 18446744073709551616 ELSE coalesce(s.owner, g.owner) END)::text, 4)
                   WHEN 2 THEN 'PSAM ' || lpad(coalesce(s.owner, g.owner)::text, 12, '0') ELSE 'terminal_no ' || coalesce(s.owner, g.owner) END),
       CASE WHEN g.kind IS NULL THEN 'no row'
            ELSE format('from %%s, next %%s, missing all else', coalesce(g.first_no, s.first_no),
                        greatest(g.highest + 1, g.first_no, s.first_no)) END,
       CASE WHEN s.kind IS NULL THEN 'no row' ELSE format('from %%s, next %%s, missing %%s', s.first_no, s.next_no, s.missing) END
  FROM (SELECT kind::integer AS kind, owner, first_no, next_no, missing FROM purse_sequence) AS s
  FULL JOIN due g ON g.kind = s.kind AND g.owner = s.owner
 WHERE s.kind IS NULL OR g.kind IS NULL OR s.first_no <> g.first_no OR s.next_no <> greatest(g.highest + 1, s.first_no)
    OR int8multirange(int8range(least(s.first_no, s.next_no), s.next_no)) - g.numbers <> s.missing

-- name: next_counters
-- says: a card's next counter is the one that its records lead to
-- rows: purse, purse_sequence
SELECT place.of_table, format('card_no %%s in shard %%s, kind 1', p.card_no, p.shard), 'the same next ATC in purse and purse_sequence',
       format('%%s and %%s', p.next_atc, s.next_no)
  FROM purse p
  JOIN purse_sequence s
    ON s.kind = 1 AND (CASE WHEN s.owner < 0 THEN s.owner + 18446744073709551616 ELSE s.owner END) = p.asn::numeric
 CROSS JOIN (VALUES ('purse'), ('purse_sequence')) AS place (of_table)
 WHERE p.next_atc <> s.next_no

-- name: gaps
-- says: each open gap is a hole of its counter, and each hole is a gap
-- rows: purse_gap, purse_sequence
SELECT 'purse_gap', coalesce('gap_no ' || g.gap_no, format('kind %%s', s.kind)), coalesce('missing ' || s.hole, 'no open gap'),
       CASE WHEN g.gap_no IS NULL THEN 'no open gap' ELSE format('kind %%s, missing %%s', g.kind, g.missing) END
  FROM (SELECT * FROM purse_gap WHERE closed_at IS NULL) AS g
  FULL JOIN (SELECT q.kind, q.owner, h.hole FROM purse_sequence q CROSS JOIN LATERAL unnest(q.missing) AS h (hole)) AS s
    ON s.kind = g.kind AND s.owner = g.owner AND s.hole = g.missing
 WHERE g.gap_no IS NULL OR s.kind IS NULL
UNION ALL
SELECT 'purse_gap', 'gap_no ' || gap_no, 'closed after it was opened', format('%%s, then %%s', opened_at, closed_at)
  FROM purse_gap WHERE closed_at < opened_at
