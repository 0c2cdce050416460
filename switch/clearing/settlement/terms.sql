-- Where parties are paid, how often and how much.

-- name: party_kind
SELECT 'MERCHANT' FROM merchant WHERE merchant_id = %(party)s
UNION ALL
SELECT 'INSTITUTION' FROM institution WHERE institution_id = %(party)s

-- name: newest_run
SELECT max(settlement_date) FROM settlement_run

-- name: propose_account
INSERT INTO payout_account (party, account_name, bank_code, sealed, mask, valid_from, reason, proposed_by)
VALUES (%(party)s, %(account_name)s, %(bank_code)s, %(sealed)s, %(mask)s, %(valid_from)s, %(reason)s, %(actor)s)
RETURNING account_no

-- name: lock_account
SELECT party, proposed_by, confirmed_by FROM payout_account WHERE account_no = %(account_no)s FOR UPDATE

-- name: confirm_account
UPDATE payout_account SET confirmed_by = %(actor)s, confirmed_at = clock_timestamp() WHERE account_no = %(account_no)s

-- name: account_in_force
-- The newest confirmed one by valid_from, then by confirmation.
SELECT account_no, party, account_name, bank_code, sealed, mask
  FROM payout_account
 WHERE party = %(party)s AND confirmed_by IS NOT NULL AND valid_from <= %(day)s
 ORDER BY valid_from DESC, confirmed_at DESC, account_no DESC
 LIMIT 1

-- name: terms_in_force
SELECT minimum_fen, cycle, cycle_day, held_all, held_fen, held_until, held_reason
  FROM payout_terms
 WHERE party = %(party)s AND valid_from <= %(day)s
 ORDER BY valid_from DESC, terms_no DESC
 LIMIT 1

-- name: wait_for_preparation
LOCK TABLE payout_terms IN ROW EXCLUSIVE MODE

-- name: set_terms
INSERT INTO payout_terms (party, valid_from, minimum_fen, cycle, cycle_day, held_all, held_fen, held_until, held_reason, set_by, reason)
VALUES (%(party)s, %(valid_from)s, %(minimum_fen)s, %(cycle)s, %(cycle_day)s, %(held_all)s, %(held_fen)s, %(held_until)s, %(held_reason)s,
        %(actor)s, %(reason)s)
RETURNING terms_no

-- name: list_accounts
SELECT account_no, party, account_name, bank_code, mask, valid_from, reason, proposed_by, proposed_at, confirmed_by, confirmed_at
  FROM payout_account
 WHERE %(party)s IN ('', party) ORDER BY party, account_no LIMIT %(most)s

-- name: list_terms
SELECT terms_no, party, valid_from, minimum_fen, cycle, cycle_day, held_all, held_fen, held_until, held_reason, set_by, set_at, reason
  FROM payout_terms
 WHERE %(party)s IN ('', party) ORDER BY party, terms_no LIMIT %(most)s
