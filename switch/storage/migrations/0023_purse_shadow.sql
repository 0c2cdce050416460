-- depends: 0021_clearing_legs
-- What operators need to see of purses, and of records that have not come.

-- Where a counter begins. A registered card's where the registry says; every other with the lowest number that has come, whenever it
-- came: so what is missing follows from the numbers alone, and not from the order in which uploads arrived.
ALTER TABLE purse_sequence ADD COLUMN first_no bigint;

CREATE TEMP TABLE came ON COMMIT DROP AS
SELECT n.kind::smallint AS kind, n.owner, range_agg(int8range(n.number, n.number + 1)) AS numbers, min(n.number) AS lowest
  FROM purse_record r
  JOIN purse_watermark w ON r.txid < w.folded_to
 CROSS JOIN LATERAL (
       SELECT 1 AS kind, r.card AS owner, r.atc::bigint AS number WHERE r.result IN ('10', '00') AND r.record_kind <> 2
       UNION ALL
       SELECT 2, r.psam, r.psam_serial WHERE r.original_entry IS NULL AND r.card IS NOT NULL AND r.result <> '02'
       UNION ALL
       SELECT 3, r.terminal_no, r.record_serial WHERE r.original_entry IS NULL AND r.card IS NOT NULL) AS n
 GROUP BY n.kind, n.owner;

-- Of a registered card nobody wrote down where it began: the last stretch without a hole that is not known says it.
UPDATE purse_sequence s
   SET first_no = (SELECT max(lower(r.part)) FROM unnest(c.numbers + s.missing) AS r (part))
  FROM came c
 WHERE c.kind = s.kind AND c.owner = s.owner
   AND s.kind = 1 AND NOT EXISTS (SELECT FROM purse_stray t WHERE t.card = s.owner);

-- What came below the number that was seen first was not looked at before.
WITH moved AS (
    UPDATE purse_sequence s
       SET first_no = c.lowest, missing = int8multirange(int8range(c.lowest, s.next_no)) - c.numbers
      FROM came c
     WHERE c.kind = s.kind AND c.owner = s.owner AND s.first_no IS NULL
    RETURNING s.kind, s.owner, s.missing
)
INSERT INTO purse_gap (kind, owner, missing, opened_at)
SELECT m.kind, m.owner, r.part, clock_timestamp()
  FROM moved m
 CROSS JOIN unnest(m.missing) AS r (part)
 WHERE NOT EXISTS (SELECT FROM purse_gap g
                    WHERE g.kind = m.kind AND g.owner = m.owner AND g.closed_at IS NULL AND g.missing = r.part);

UPDATE purse_sequence SET first_no = coalesce(lower(missing), next_no) WHERE first_no IS NULL;
ALTER TABLE purse_sequence ALTER COLUMN first_no SET NOT NULL;
ALTER TABLE purse_sequence ADD CHECK (first_no <= next_no);

-- When a hole has been open for 30 days it is reported, once: by an alarm of its own. What late records leave of it has been reported too.
ALTER TABLE purse_gap ADD COLUMN reported_at timestamptz;
CREATE INDEX purse_gap_unreported ON purse_gap (opened_at) WHERE closed_at IS NULL AND reported_at IS NULL;
CREATE INDEX purse_gap_of_owner ON purse_gap (kind, owner);

-- An alarm is about a record or about a hole. Further kinds: GAP_OVERDUE, and RECORD_SERIAL_REUSED: a terminal has given a record serial
-- twice, so its count of records says nothing any more.
ALTER TABLE purse_alarm ALTER COLUMN entry_no DROP NOT NULL;
ALTER TABLE purse_alarm ADD COLUMN gap_no bigint REFERENCES purse_gap (gap_no);
ALTER TABLE purse_alarm ADD CHECK (num_nonnulls(entry_no, gap_no) = 1);
ALTER TABLE purse_alarm ADD UNIQUE (kind, gap_no);
CREATE INDEX purse_alarm_of_card ON purse_alarm (card, kind);

-- Who has looked into an alarm, when, and what was found. The newest line counts; books never change by it. Append-only.
CREATE TABLE purse_alarm_note (
    note_no      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    alarm_no     bigint NOT NULL REFERENCES purse_alarm (alarm_no),
    at           timestamptz NOT NULL,
    actor        text NOT NULL CHECK (actor <> ''),
    acknowledged boolean NOT NULL,  -- false: it is opened again
    reason       text NOT NULL CHECK (reason <> '')
);
CREATE INDEX purse_alarm_note_of_alarm ON purse_alarm_note (alarm_no, note_no);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON purse_alarm_note
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Alarms with the last word about them.
CREATE VIEW purse_alarm_state AS
SELECT a.*, coalesce(n.acknowledged, false) AS acknowledged, n.at AS noted_at, n.actor, n.reason
  FROM purse_alarm a
  LEFT JOIN (SELECT DISTINCT ON (alarm_no) alarm_no, at, actor, acknowledged, reason
               FROM purse_alarm_note ORDER BY alarm_no, note_no DESC) AS n USING (alarm_no);

-- People look for the damaged records of a terminal when some of its serials are missing.
CREATE INDEX purse_quarantine_of_terminal ON purse_quarantine (terminal_no);

-- Loads whose money has gone back are held against the cards' own balances when the day is closed.
CREATE INDEX purse_load_move_back ON purse_load_move (business_date) WHERE to_state IN (3, 6);
