-- What an import does with its staging tables: `staged_<kind>` (file_no, place, subject, columns) as the files say,
-- `differing_<kind>` (the same, is_new, before, after) what is new or changed. registry/importing.py says in which order.

-- name: stored_institutions
-- The stored_ queries show what is known in the columns of the files; exports read them too.
SELECT institution_id AS subject, institution_id, name, role, scope FROM institution

-- name: stored_card_issuers
SELECT upper(encode(issuer_id, 'hex')) AS subject, upper(encode(issuer_id, 'hex')) AS issuer_id, institution_id, own,
       bins, coalesce(circle, CASE WHEN own THEN 'LOCAL' ELSE 'NATION' END) AS circle, scope
  FROM card_issuer

-- name: stored_merchants
SELECT merchant_id AS subject, merchant_id, name, category, acquirer_id, state FROM merchant

-- name: stored_terminals
SELECT t.terminal_id AS subject, t.terminal_id, m.merchant_id, t.mac_algorithm, t.sm2_public_key, t.cash_loads, t.state
  FROM terminal t JOIN merchant m ON m.merchant_no = t.merchant_no

-- name: stored_psams
SELECT p.psam_no AS subject, p.psam_no, m.merchant_id, t.terminal_id, p.state
  FROM psam p
  JOIN merchant m ON m.merchant_no = p.merchant_no
  LEFT JOIN terminal t ON t.terminal_no = p.terminal_no

-- name: stored_fee_rules
SELECT concat_ws(' ', coalesce(m.merchant_id, '*'), coalesce(f.category, '*'), f.account_kind,
                 to_char(f.valid_from, 'YYYY-MM-DD')) AS subject,
       m.merchant_id, f.category, f.account_kind, f.rate_ppm, f.minimum_fen, f.cap_fen,
       f.weight_issuer, f.weight_switch, f.weight_acquirer, f.valid_from, f.valid_to
  FROM fee_rule f LEFT JOIN merchant m ON m.merchant_no = f.merchant_no

-- name: known_cards
-- Numbers alone; what is kept of cards, for exports, is in card_import.sql.
SELECT pan AS subject FROM card_route

-- name: one_import
-- One import at a time; another waits.
SELECT pg_advisory_xact_lock(hashtext('registry import'))

-- name: check_bin_owner
-- Leading digits that a file gives name one issuer. Longer ones of another may lie within them: the longest that fit decide.
WITH coming AS (
    SELECT file_no, place, subject, issuer_id, bins FROM staged_card_issuers
    UNION ALL
    SELECT NULL, NULL, subject, issuer_id, bins
      FROM ({stored_card_issuers}) i
     WHERE NOT EXISTS (SELECT FROM staged_card_issuers s WHERE s.subject = i.subject)
), digits AS (
    SELECT file_no, place, subject, bins IS NOT NULL AS given,
           unnest(string_to_array(coalesce(bins, '31' || substr(issuer_id, 5, 4)), ' ')) AS bin
      FROM coming
)
SELECT DISTINCT a.file_no, a.place, 'bins', 'are leading digits of another issuer too'
  FROM digits a JOIN digits b ON a.bin = b.bin AND a.subject <> b.subject
 WHERE a.file_no IS NOT NULL AND a.given

-- name: check_terminal_move
-- The figures of a batch belong to one merchant.
SELECT d.file_no, d.place, 'merchant_id', 'cannot change while the terminal has a batch that is not closed'
  FROM differing_terminals d
  JOIN terminal t ON t.terminal_id = d.terminal_id
 WHERE NOT d.is_new
   AND d.before ->> 'merchant_id' <> d.after ->> 'merchant_id'
   AND EXISTS (SELECT FROM terminal_batch b WHERE b.terminal_no = t.terminal_no AND b.state <> 2)

-- name: check_acquirer_move
-- Clearing asks at the day's end who a merchant's acquirer is.
SELECT d.file_no, d.place, 'acquirer_id', 'cannot change while a terminal of the merchant has a batch that is not closed'
  FROM differing_merchants d
  JOIN merchant m ON m.merchant_id = d.merchant_id
 WHERE NOT d.is_new
   AND d.before ->> 'acquirer_id' <> d.after ->> 'acquirer_id'
   AND EXISTS (SELECT FROM terminal t JOIN terminal_batch b ON b.terminal_no = t.terminal_no AND b.state <> 2
                WHERE t.merchant_no = m.merchant_no)

-- name: check_psam_terminal
SELECT p.file_no, p.place, 'terminal_id', 'must be a terminal of the same merchant'
  FROM staged_psams p
  LEFT JOIN staged_terminals s ON s.terminal_id = p.terminal_id
  LEFT JOIN terminal t ON t.terminal_id = p.terminal_id
  LEFT JOIN merchant m ON m.merchant_no = t.merchant_no
 WHERE p.terminal_id IS NOT NULL
   AND coalesce(s.merchant_id, m.merchant_id) <> p.merchant_id

-- name: check_psam_stays
SELECT s.file_no, s.place, 'merchant_id', 'has a PSAM of the merchant before; move it in the same import'
  FROM staged_terminals s
  JOIN terminal t ON t.terminal_id = s.terminal_id
  JOIN psam p ON p.terminal_no = t.terminal_no AND p.state = 'ACTIVE'
  JOIN merchant m ON m.merchant_no = p.merchant_no
 WHERE m.merchant_id <> s.merchant_id
   AND NOT EXISTS (SELECT FROM staged_psams n WHERE n.psam_no = p.psam_no)

-- name: check_fee_overlap
-- What the rules will be: those of the files, and the known ones that the files do not name.
WITH coming AS (
    SELECT file_no, place, subject, merchant_id, category, account_kind, valid_from, valid_to FROM staged_fee_rules
    UNION ALL
    SELECT NULL, NULL, subject, merchant_id, category, account_kind, valid_from, valid_to
      FROM ({stored_fee_rules}) f
     WHERE NOT EXISTS (SELECT FROM staged_fee_rules s WHERE s.subject = f.subject)
)
SELECT DISTINCT a.file_no, a.place, 'valid_from', 'overlaps another rule of the same scope and account kind'
  FROM coming a
  JOIN coming b
    ON a.subject <> b.subject
   AND a.account_kind = b.account_kind
   AND coalesce(a.merchant_id, '') = coalesce(b.merchant_id, '')
   AND coalesce(a.category, '') = coalesce(b.category, '')
   AND daterange(a.valid_from, a.valid_to, '[]') && daterange(b.valid_from, b.valid_to, '[]')
 WHERE a.file_no IS NOT NULL

-- name: check_fee_closed_day
-- Days that are closed keep their fees: refunds and the audit compute them again.
SELECT d.file_no, d.place, 'valid_from',
       CASE WHEN d.is_new THEN 'must be after the last closed day'
            ELSE 'a rule that held on a closed day can only be ended, on the last closed day or later' END
  FROM differing_fee_rules d
  CROSS JOIN (SELECT max(business_date) AS day FROM business_day WHERE state = 2) closed
 WHERE d.valid_from <= closed.day
   AND (d.is_new
        OR d.before - 'valid_to' <> d.after - 'valid_to'
        OR coalesce(d.valid_to, 'infinity') < closed.day
        OR coalesce((d.before ->> 'valid_to')::date, 'infinity') < closed.day)

-- name: save_institutions
INSERT INTO institution (institution_id, name, role, scope)
SELECT institution_id, name, role, scope FROM differing_institutions
    ON CONFLICT (institution_id) DO UPDATE SET name = excluded.name, role = excluded.role, scope = excluded.scope

-- name: save_card_issuers
INSERT INTO card_issuer (issuer_id, institution_id, own, bins, circle, scope)
SELECT decode(issuer_id, 'hex'), institution_id, own, bins, circle, scope FROM differing_card_issuers
    ON CONFLICT (issuer_id) DO UPDATE
   SET institution_id = excluded.institution_id, own = excluded.own, bins = excluded.bins, circle = excluded.circle,
       scope = excluded.scope

-- name: save_merchants
INSERT INTO merchant (merchant_id, name, category, acquirer_id, state)
SELECT merchant_id, name, category, acquirer_id, state FROM differing_merchants
    ON CONFLICT (merchant_id) DO UPDATE
   SET name = excluded.name, category = excluded.category, acquirer_id = excluded.acquirer_id, state = excluded.state

-- name: save_terminals
INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm, sm2_public_key, cash_loads, state)
SELECT d.terminal_id, m.merchant_no, d.mac_algorithm, d.sm2_public_key, d.cash_loads, d.state
  FROM differing_terminals d JOIN merchant m ON m.merchant_id = d.merchant_id
    ON CONFLICT (terminal_id) DO UPDATE
   SET merchant_no = excluded.merchant_no, mac_algorithm = excluded.mac_algorithm,
       sm2_public_key = excluded.sm2_public_key, cash_loads = excluded.cash_loads, state = excluded.state

-- name: end_sessions
-- Of terminals that moved, were closed or have another MAC algorithm: they sign on again.
UPDATE terminal_session s
   SET generation = last_generation + 1, last_generation = last_generation + 1
  FROM (SELECT o.terminal_no
          FROM terminal_session o
          JOIN terminal t ON t.terminal_no = o.terminal_no
          JOIN differing_terminals d ON d.terminal_id = t.terminal_id AND NOT d.is_new
         ORDER BY o.terminal_no
           FOR UPDATE OF o) locked
 WHERE s.terminal_no = locked.terminal_no

-- name: drop_ended_keys
DELETE FROM terminal_key_set k
 USING terminal_session s, terminal t, differing_terminals d
 WHERE s.terminal_no = k.terminal_no
   AND k.generation < s.generation
   AND t.terminal_no = k.terminal_no
   AND d.terminal_id = t.terminal_id

-- name: save_psams
INSERT INTO psam (psam_no, merchant_no, terminal_no, state)
SELECT d.psam_no, m.merchant_no, t.terminal_no, d.state
  FROM differing_psams d
  JOIN merchant m ON m.merchant_id = d.merchant_id
  LEFT JOIN terminal t ON t.terminal_id = d.terminal_id
    ON CONFLICT (psam_no) DO UPDATE
   SET merchant_no = excluded.merchant_no, terminal_no = excluded.terminal_no, state = excluded.state

-- name: change_fee_rules
-- Before new ones are added: a rule ends and the next begins in the same files.
UPDATE fee_rule f
   SET rate_ppm = d.rate_ppm, minimum_fen = d.minimum_fen, cap_fen = d.cap_fen, weight_issuer = d.weight_issuer,
       weight_switch = d.weight_switch, weight_acquirer = d.weight_acquirer, valid_to = d.valid_to
  FROM differing_fee_rules d LEFT JOIN merchant m ON m.merchant_id = d.merchant_id
 WHERE NOT d.is_new
   AND f.merchant_no IS NOT DISTINCT FROM m.merchant_no
   AND f.category IS NOT DISTINCT FROM d.category
   AND f.account_kind = d.account_kind
   AND f.valid_from = d.valid_from

-- name: save_fee_rules
INSERT INTO fee_rule (merchant_no, category, account_kind, rate_ppm, minimum_fen, cap_fen,
                      weight_issuer, weight_switch, weight_acquirer, valid_from, valid_to)
SELECT m.merchant_no, d.category, d.account_kind, d.rate_ppm, d.minimum_fen, d.cap_fen,
       d.weight_issuer, d.weight_switch, d.weight_acquirer, d.valid_from, d.valid_to
  FROM differing_fee_rules d LEFT JOIN merchant m ON m.merchant_id = d.merchant_id
 WHERE d.is_new

-- name: announce_all
SELECT pg_notify('registry', 'all')
