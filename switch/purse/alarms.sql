-- What somebody must look into (alarms.py): the list, the evidence, and who has looked.

-- name: list_alarms
-- The newest last, so that a person at a terminal sees them.
SELECT * FROM (
    SELECT alarm_no, at, kind, entry_no, gap_no, business_date, CASE WHEN card IS NOT NULL THEN card_digits(card) END, detail,
           acknowledged, noted_at, actor, reason
      FROM purse_alarm_state
     WHERE (%(every)s OR NOT acknowledged)
       AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s::text[]))
       AND (%(card)s::bigint IS NULL OR card = %(card)s::bigint)
       AND (%(alarm_no)s::bigint IS NULL OR alarm_no = %(alarm_no)s::bigint)
     ORDER BY alarm_no DESC LIMIT %(at_most)s) AS newest
 ORDER BY alarm_no;

-- name: notes_of
SELECT at, actor, acknowledged, reason FROM purse_alarm_note WHERE alarm_no = %(alarm_no)s ORDER BY note_no;

-- name: lock_alarms
-- In order of number. Two people about one alarm wait here for each other.
SELECT alarm_no FROM purse_alarm WHERE alarm_no = ANY(%(alarms)s::bigint[]) ORDER BY alarm_no FOR UPDATE;

-- name: last_notes
-- In a statement after the locks, so that it sees what the one before has written.
SELECT DISTINCT ON (alarm_no) alarm_no, acknowledged, actor, at
  FROM purse_alarm_note
 WHERE alarm_no = ANY(%(alarms)s::bigint[])
 ORDER BY alarm_no, note_no DESC;

-- name: write_notes
INSERT INTO purse_alarm_note (alarm_no, at, actor, acknowledged, reason)
SELECT n.alarm_no, t.at, %(actor)s, %(acknowledged)s, %(reason)s
  FROM unnest(%(alarms)s::bigint[]) AS n (alarm_no), (SELECT clock_timestamp() AS at) AS t
 ORDER BY n.alarm_no;

-- name: record
SELECT r.entry_no, r.business_date, r.result, CASE WHEN r.card IS NOT NULL THEN card_digits(r.card) END, r.card, r.atc, r.amount_fen,
       r.balance_fen, lpad(r.psam::text, 12, '0'), r.psam, r.psam_serial, t.terminal_id, m.merchant_id, r.record_serial,
       r.happened_at, r.received_at, upper(encode(substr(r.raw, 56, 4), 'hex'))
  FROM purse_record r
  LEFT JOIN terminal t ON t.terminal_no = r.terminal_no
  LEFT JOIN merchant m ON m.merchant_no = r.merchant_no
 WHERE r.entry_no = %(entry_no)s AND r.business_date = %(business_date)s;

-- name: holder_of_atc
SELECT entry_no, business_date FROM purse_atc WHERE card = %(card)s AND atc = %(atc)s;

-- name: holder_of_serial
SELECT a.entry_no, a.business_date
  FROM purse_serial s JOIN purse_atc a ON a.card = s.card AND a.atc = s.atc
 WHERE s.psam = %(psam)s AND s.psam_serial = %(psam_serial)s;

-- name: next_of_card
-- The evidence about a grey record: the first accepted one from its counter on.
SELECT entry_no, business_date FROM purse_atc WHERE card = %(card)s AND atc >= %(atc)s ORDER BY atc LIMIT 1;

-- name: gap
SELECT kind, owner, lower(missing), upper(missing) - 1, opened_at, closed_at FROM purse_gap WHERE gap_no = %(gap_no)s;
