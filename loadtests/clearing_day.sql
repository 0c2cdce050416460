-- A business day as the service would have left it, for close_bench.py. Made where it lies, in few statements: ten million transactions
-- are in place within minutes. The audit finds nothing wrong with it. Digests, TACs and checksums are noise; nobody reads them at a close.
--
-- Of 1 000 online transactions: 820 purchases and 100 more that a bank decides, 20 voids, 20 part refunds, 20 reversals, 20 declined. Offline
-- records come 50 to an upload: rides of our cards, a fourth of them entries and exits of a metro, with some grey, repeated, outdated and
-- foreign ones.

-- name: institutions
INSERT INTO institution (institution_id, name, role)
VALUES ('99993350', 'Load Town', 'ISSUER'), ('99990000', 'Centre', 'CENTRE'), ('99993310', 'Second acquirer', 'ACQUIRER'),
       ('01020000', 'First bank', 'BANK'), ('01050000', 'Second bank', 'BANK'), ('99995840', 'Next city', 'CITY')
    ON CONFLICT DO NOTHING;

-- name: issuers
INSERT INTO card_issuer (issuer_id, institution_id, own)
VALUES ('\x99993350FFFFFFFF', '99993350', true), ('\x99995840FFFFFFFF', '99995840', false)
    ON CONFLICT DO NOTHING;

-- name: merchants
INSERT INTO merchant (merchant_id, name, category, acquirer_id)
SELECT '993350' || c.category || lpad(n::text, 5, '0'), 'Shop ' || n, c.category, CASE WHEN n %% 10 = 3 THEN '99993310' ELSE '99993350' END
  FROM generate_series(1, %(merchants)s) AS n
 CROSS JOIN LATERAL (SELECT (ARRAY['4111', '5411', '5812', '8062', '5912', '7523', '5331', '4131'])[1 + n %% 8] AS category) AS c;

-- name: fee_rules
INSERT INTO fee_rule (merchant_no, category, account_kind, rate_ppm, minimum_fen, cap_fen, valid_from)
SELECT NULL::integer, NULL, kind, 3800, 0, NULL::bigint, DATE '2020-01-01' FROM unnest(ARRAY[10, 20, 50]) AS kind
UNION ALL
SELECT NULL, '5812', 10, 6000, 1, 2600, '2020-01-01'
UNION ALL
SELECT NULL, '5411', kind, 3000, 0, 1000, '2020-01-01' FROM unnest(ARRAY[10, 20]) AS kind
UNION ALL
SELECT merchant_no, NULL, 10, 2500, 0, NULL, '2020-01-01' FROM merchant WHERE merchant_no %% 20 = 1;

-- name: terminals
-- A few merchants have most of the terminals.
INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm)
SELECT lpad((33600000 + n)::text, 8, '0'), 1 + floor(%(merchants)s * (n::float8 / %(terminals)s) ^ 2)::integer, 5
  FROM generate_series(0, %(terminals)s - 1) AS n;

-- name: psams
INSERT INTO psam (psam_no, merchant_no) SELECT lpad(terminal_no::text, 12, '0'), merchant_no FROM terminal;

-- name: cards
INSERT INTO card (shard, pan, card_no, holder_id, state, valid_from, valid_through)
SELECT shard, pan, card_no, holder_id, 1, '2024-01-01', '2034-01-01' FROM card_route;

-- name: holders
INSERT INTO holder (holder_id, holder_key, shard) SELECT holder_id, 'H' || holder_id, shard FROM card_route;

-- name: accounts
INSERT INTO account (shard, account_id, holder_id, kind, balance_fen)
SELECT shard, holder_id * 100 + 10, holder_id, 10, %(opening_fen)s FROM card_route;

-- name: open_accounts
INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT shard, %(day)s, %(first)s + row_number() OVER (ORDER BY card_no), 1001, 0, 2001, holder_id * 100 + 10, %(opening_fen)s FROM card_route;

-- name: open_purses
-- Also of a town whose cards came without one.
WITH opened AS (
    INSERT INTO purse (shard, card_no, asn, loaded_fen)
    SELECT shard, card_no, '0' || pan, 100000 FROM card_route ON CONFLICT DO NOTHING
    RETURNING shard, card_no
)
INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT shard, %(day)s, %(first)s + row_number() OVER (ORDER BY card_no), 1001, 0, 2002, card_no, 100000 FROM opened;

-- name: list_cards
CREATE TEMPORARY TABLE listed_card ON COMMIT DROP AS
SELECT row_number() OVER (ORDER BY card_no) - 1 AS n, shard, pan, card_no, holder_id, card_key(pan) AS card FROM card_route;

-- name: list_terminals
CREATE TEMPORARY TABLE listed_terminal ON COMMIT DROP AS
SELECT t.*, m.merchant_id, m.acquirer_id, p.psam_no
  FROM (SELECT row_number() OVER (ORDER BY terminal_no) - 1 AS n, terminal_no, terminal_id, merchant_no FROM terminal) AS t
  JOIN merchant m USING (merchant_no)
  JOIN (SELECT row_number() OVER (ORDER BY psam_no) - 1 AS n, psam_no FROM psam) AS p USING (n);

-- name: online
-- What undoes something is the next step of the same terminal. A host's approval follows its intent under the next number.
INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, account_id, pan, amount_fen, effect_fen,
                     answer, rrn, auth_code, entry_mode, decided_at, digest, original_date, original_entry)
WITH step AS (
    SELECT n, n / %(terminals)s AS s, n %% %(terminals)s AS t,
           CASE WHEN n < %(terminals)s THEN 1 ELSE (n / %(terminals)s + n %% %(terminals)s * 7) %% 50 END AS role
      FROM generate_series(0, %(online)s::bigint - 1) AS n
), shaped AS (
    SELECT n, s, t, CASE WHEN role = 10 THEN 3 WHEN role = 20 THEN 4 WHEN role = 30 THEN 5 ELSE 1 END AS kind, role = 40 AS declined,
           role %% 10 = 5 AS hosted, CASE WHEN role IN (10, 20, 30) THEN n - %(terminals)s ELSE n END AS base
      FROM step
), item AS (
    SELECT *, 100 + base * 104729 %% 30011 AS base_fen, base * 7919 %% %(cards)s AS card_n,
           %(first)s + 2 * n AS number, %(first)s + 2 * base AS base_number,
           %(begin)s + %(span)s::interval * (n::float8 / %(online)s) AS at, %(begin)s + %(span)s::interval * (base::float8 / %(online)s) AS base_at
      FROM shaped
), sized AS (
    SELECT *, CASE kind WHEN 4 THEN (base_fen + 1) / 2 ELSE base_fen END AS amount_fen, CASE kind WHEN 5 THEN base_number ELSE number END AS named,
           CASE kind WHEN 5 THEN base_at ELSE at END AS named_at
      FROM item
)
SELECT c.shard, %(day)s, t.terminal_no, 900001, CASE i.kind WHEN 5 THEN i.s ELSE i.s + 1 END,
       CASE WHEN i.hosted AND part = 0 THEN 2 WHEN i.kind = 5 THEN 1 ELSE 0 END, i.number + part, t.merchant_no, i.kind,
       c.holder_id * 100 + CASE WHEN i.hosted THEN 20 ELSE 10 END, c.pan, i.amount_fen,
       CASE WHEN i.declined OR (i.hosted AND part = 0) THEN 0 WHEN i.kind = 1 THEN i.amount_fen ELSE -i.amount_fen END,
       CASE WHEN i.declined THEN '51' WHEN i.hosted AND part = 0 THEN '09' ELSE '00' END, r.rrn,
       CASE WHEN i.declined OR i.kind IN (4, 5) OR (i.hosted AND part = 0) THEN '' WHEN i.hosted THEN lpad((i.n %% 1000000)::text, 6, '0')
            WHEN i.kind = 1 THEN right(r.rrn, 6) ELSE right(reference_of(i.base_number, i.base_at), 6) END,
       '051', i.at + part * interval '30 milliseconds', sha256(int8send(i.n)), CASE WHEN i.base <> i.n THEN %(day)s::date END,
       CASE WHEN i.base <> i.n THEN i.base_number END
  FROM sized i
  JOIN listed_card c ON c.n = i.card_n
  JOIN listed_terminal t ON t.n = i.t
 CROSS JOIN LATERAL (SELECT reference_of(i.named, i.named_at) AS rrn) AS r
 CROSS JOIN LATERAL generate_series(0, i.hosted::integer) AS part;

-- name: host_legs
INSERT INTO host_leg (shard, leg_no, business_date, terminal_no, batch_no, stan, merchant_no, terminal_id, merchant_id, kind, account_kind, pan,
                      amount_fen, entry_mode, rrn, host, debit_code, debit_owner, service, step, transmitted, trace, asked_at, gives_up_at, state,
                      ended_at, ended_by, host_code, host_auth, host_day)
SELECT j.shard, j.entry_no, j.business_date, j.terminal_no, j.batch_no, j.stan, j.merchant_no, t.terminal_id, t.merchant_id, 1, 20,
       '622848' || lpad((j.account_id / 100)::text, 13, '0'), j.amount_fen, j.entry_mode, j.rrn, b.host, 1101, b.owner, 1, 2,
       to_char(j.decided_at AT TIME ZONE INTERVAL '8 hours', 'MMDDHH24MISS'), j.entry_no %% 999999 + 1, j.decided_at,
       j.decided_at + interval '15 seconds', 1, j.decided_at + interval '30 milliseconds', j.entry_no + 1, '00',
       lpad(((j.entry_no - %(first)s) / 2 %% 1000000)::text, 6, '0'), to_char(j.decided_at AT TIME ZONE INTERVAL '8 hours', 'MMDD')
  FROM journal j
  JOIN listed_terminal t USING (terminal_no)
 CROSS JOIN LATERAL (SELECT CASE j.account_id / 100 %% 3 WHEN 0 THEN 'second' ELSE 'first' END AS host,
                            CASE j.account_id / 100 %% 3 WHEN 0 THEN 1050000 ELSE 1020000 END AS owner) AS b
 WHERE j.business_date = %(day)s AND j.class = 2 AND j.entry_no >= %(first)s;

-- name: online_postings
INSERT INTO posting (shard, business_date, entry_no, debit_code, debit_owner, credit_code, credit_owner, amount_fen)
SELECT j.shard, j.business_date, j.entry_no,
       CASE WHEN effect_fen < 0 THEN 2101 WHEN l.leg_no IS NULL THEN 2001 ELSE l.debit_code END,
       CASE WHEN effect_fen < 0 THEN j.merchant_no WHEN l.leg_no IS NULL THEN j.account_id ELSE l.debit_owner END,
       CASE WHEN effect_fen < 0 THEN 2001 ELSE 2101 END, CASE WHEN effect_fen < 0 THEN j.account_id ELSE j.merchant_no END, j.amount_fen
  FROM journal j
  LEFT JOIN host_leg l ON l.shard = j.shard AND l.ended_by = j.entry_no
 WHERE j.business_date = %(day)s AND j.effect_fen <> 0 AND j.entry_no >= %(first)s
 ORDER BY j.entry_no;

-- name: original_uses
INSERT INTO original_use (shard, entry_no, business_date, amount_fen, refunded_fen, undone_by)
SELECT o.shard, o.entry_no, o.business_date, o.amount_fen, CASE j.kind WHEN 4 THEN j.amount_fen ELSE 0 END, CASE WHEN j.kind <> 4 THEN j.entry_no END
  FROM journal j
  JOIN journal o ON o.business_date = %(day)s AND o.shard = j.shard AND o.entry_no = j.original_entry
 WHERE j.business_date = %(day)s AND j.original_entry >= %(first)s;

-- name: spend
UPDATE account a SET balance_fen = a.balance_fen - s.fen
  FROM (SELECT shard, account_id, sum(effect_fen)::bigint AS fen
          FROM journal WHERE business_date = %(day)s AND entry_no >= %(first)s AND account_id %% 100 = 10
         GROUP BY shard, account_id) AS s
 WHERE a.shard = s.shard AND a.account_id = s.account_id;

-- name: records
-- The last place of an upload is at times one that uses nothing up: the record before it once more (03), one of another city's card (11), one that is
-- too old (05). i counts the others: it gives each card and each of its counters in turn.
INSERT INTO purse_record (entry_no, card_no, card, amount_fen, balance_fen, psam, psam_serial, record_serial, credit_owner, happened_at,
                          received_at, business_date, terminal_no, merchant_no, batch_no, atc, shard, credit_code, record_kind, result, raw)
WITH slot AS (
    SELECT o / 50 AS g, o %% 50 AS pos, CASE WHEN o %% 50 = 49 THEN o / 50 %% 4 ELSE 3 END AS role FROM generate_series(0, %(offline)s::bigint - 1) AS o
), counted AS (
    SELECT *, g * 50 + pos - g / 4 * 3 - g %% 4 - CASE role WHEN 0 THEN 1 ELSE 0 END AS i, g / %(terminals)s AS s, g %% %(terminals)s AS t FROM slot
), drawn AS (
    SELECT *, i %% %(cards)s AS card_n, (i / %(cards)s)::integer AS k, s * (CASE t %% 4 WHEN 0 THEN 49 ELSE 50 END) + pos AS serial FROM counted
), priced AS (
    SELECT d.*, c.shard, c.card_no, c.card, c.pan, 100 + card_n * 37 %% 800 AS fare_fen, card_n %% 4 = 0 AS metro,
           %(begin)s + %(span)s::interval * (g::float8 / %(groups)s) AS received_at
      FROM drawn d JOIN listed_card c ON c.n = d.card_n
), shown AS (
    SELECT p.*, role = 3 AND NOT metro AND i %% 499 = 7 AS grey, t.terminal_no, t.merchant_no, t.psam_no, t.acquirer_id,
           CASE WHEN role = 2 THEN 60000 + s %% 5000 ELSE k END AS atc, CASE WHEN metro AND k %% 2 = 0 THEN 0 ELSE fare_fen END AS amount_fen,
           100000 - fare_fen * CASE WHEN metro THEN k / 2 ELSE k END AS balance_fen,
           CASE role WHEN 0 THEN serial - 1 ELSE serial END AS said_serial,
           date_trunc('second', received_at AT TIME ZONE INTERVAL '8 hours') - CASE role WHEN 2 THEN interval '100 days' ELSE interval '10 minutes' END AS happened_at,
           '313358400' || lpad(g::text, 10, '0') AS foreign_pan
      FROM priced p JOIN listed_terminal t ON t.n = p.t
)
SELECT %(first)s + g * 51 + pos, CASE WHEN role <> 1 THEN card_no END, CASE role WHEN 1 THEN card_key(foreign_pan) ELSE card END, amount_fen, balance_fen,
       psam_no::bigint, said_serial, said_serial, merchant_no, happened_at, received_at, %(day)s, terminal_no, merchant_no, 1, atc, shard, 2101,
       grey::integer, CASE role WHEN 0 THEN '03' WHEN 1 THEN '11' WHEN 2 THEN '05' ELSE CASE WHEN grey THEN '04' ELSE '10' END END,
       decode('01' || CASE WHEN grey THEN '01' ELSE '00' END || '06' || CASE WHEN card_n %% 2 = 1 THEN '04' ELSE '00' END || '0101'
              || '0' || CASE role WHEN 1 THEN foreign_pan || '99995840FFFFFFFF' ELSE pan || '99993350FFFFFFFF' END || '33500100' || lpad(to_hex(atc), 4, '0')
              || lpad(to_hex(amount_fen), 8, '0') || lpad(to_hex(balance_fen), 8, '0') || to_char(happened_at, 'YYYYMMDDHH24MISS') || psam_no
              || lpad(to_hex(said_serial), 8, '0') || CASE WHEN grey THEN 'FFFFFFFF' ELSE lpad(to_hex(1 + i * 2654435761 %% 4294967000), 8, '0') END
              || lpad(to_hex(said_serial), 8, '0') || acquirer_id || 'FFFFFFFF' || '3350' || lpad(to_hex(amount_fen + 20 * (amount_fen > 0)::integer), 8, '0')
              || CASE WHEN NOT metro THEN '0001' || lpad((t %% 9999)::text, 4, '0') || '00000000' WHEN k %% 2 = 0 THEN '0102' || '0010' || '00010000'
                      ELSE '0202' || '0010' || '00050001' END
              || '0001234500000021' || '00' || '0000', 'hex')
  FROM shown
 ORDER BY g, pos;

-- name: uploads
INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, amount_fen, answer, rrn, decided_at,
                     digest, extra)
SELECT 0, %(day)s, terminal_no, 1, -1 - g / %(terminals)s, 0, %(first)s + g * 51 + 50, merchant_no, 20, taken_fen, '00',
       reference_of(%(first)s + g * 51 + 50, at), at, sha256(int8send(g)),
       convert_to(format('{"62":"%%s%%s","head":2,"n":%%s,"taken":%%s}', lpad(to_hex(records), 4, '0'), results, records, taken), 'UTF8')
  FROM (SELECT (entry_no - %(first)s) / 51 AS g, terminal_no, merchant_no, received_at AS at, count(*) AS records,
               count(*) FILTER (WHERE result IN ('10', '04', '11')) AS taken,
               coalesce(sum(amount_fen) FILTER (WHERE result IN ('10', '04', '11')), 0) AS taken_fen,
               string_agg(encode(substr(raw, 60, 4) || result::bytea, 'hex'), '' ORDER BY entry_no) AS results
          FROM purse_record WHERE business_date = %(day)s AND entry_no >= %(first)s
         GROUP BY 1, 2, 3, 4) AS upload
 ORDER BY g;

-- name: upload_serials
INSERT INTO purse_batch (terminal_no, serial, batch_no, business_date)
SELECT terminal_no, -stan, batch_no, business_date FROM journal WHERE business_date = %(day)s AND kind = 20 AND stan <= 0 AND entry_no >= %(first)s;

-- name: used_counters
INSERT INTO purse_atc (card, amount_fen, balance_fen, entry_no, business_date, atc, mark)
SELECT card, amount_fen, balance_fen, entry_no, business_date, atc, substr(raw, 39, 21)
  FROM purse_record WHERE business_date = %(day)s AND result = '10' AND entry_no >= %(first)s;

-- name: used_serials
INSERT INTO purse_serial (psam, psam_serial, card, atc)
SELECT psam, psam_serial, card, atc FROM purse_record WHERE business_date = %(day)s AND result = '10' AND entry_no >= %(first)s;

-- name: waiting
INSERT INTO purse_waiting (card, atc, amount_fen, mark, result, entry_no, business_date, balance_fen)
SELECT card, atc, amount_fen, substr(raw, 39, 21), result, entry_no, business_date, balance_fen
  FROM purse_record WHERE business_date = %(day)s AND result IN ('04', '11') AND entry_no >= %(first)s;
