-- Fee rules as people see and change them (fee_changes.py), and what they would come to (fee_trial.py).

-- name: one_at_a_time
-- Registry imports change rules too, and wait for the same lock.
SELECT pg_advisory_xact_lock(hashtext('registry import'));

-- name: open_date
SELECT business_date FROM business_day WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at;

-- name: merchants
SELECT merchant_id, merchant_no, category FROM merchant WHERE merchant_id = ANY(%(merchant_ids)s);

-- name: list_rules
-- on_date NULL: all there ever were.
SELECT f.rule_no, m.merchant_id, f.category, f.account_kind, f.rate_ppm, f.minimum_fen, f.cap_fen, f.weight_issuer, f.weight_switch,
       f.weight_acquirer, f.valid_from, f.valid_to
  FROM fee_rule f LEFT JOIN merchant m USING (merchant_no)
 WHERE (%(on_date)s::date IS NULL OR (f.valid_from <= %(on_date)s AND coalesce(f.valid_to, 'infinity') >= %(on_date)s))
 ORDER BY f.account_kind, m.merchant_id NULLS LAST, f.category NULLS LAST, f.valid_from;

-- name: colliding
-- Rules of the same scope that begin in the new rule's time; and, where nothing follows the new rule, one that holds beyond its end:
-- nobody has said what becomes of them.
SELECT f.rule_no
  FROM fee_rule f
 WHERE f.merchant_no IS NOT DISTINCT FROM %(merchant_no)s::integer AND f.category IS NOT DISTINCT FROM %(category)s::text
   AND f.account_kind = %(account_kind)s
   AND ((f.valid_from >= %(valid_from)s::date AND f.valid_from <= coalesce(%(valid_to)s::date, 'infinity'))
        OR (NOT %(followed)s AND f.valid_from < %(valid_from)s::date AND coalesce(f.valid_to, 'infinity') > coalesce(%(valid_to)s::date, 'infinity')))
 ORDER BY f.valid_from LIMIT 1;

-- name: add_proposal
INSERT INTO fee_proposal (proposer, reason) VALUES (%(actor)s, %(reason)s) RETURNING proposal_no;

-- name: add_proposed_rule
INSERT INTO fee_proposal_rule (proposal_no, line, merchant_no, category, account_kind, rate_ppm, minimum_fen, cap_fen, weight_issuer,
                               weight_switch, weight_acquirer, valid_from, valid_to)
VALUES (%(proposal_no)s, %(line)s, %(merchant_no)s, %(category)s, %(account_kind)s, %(rate_ppm)s, %(minimum_fen)s, %(cap_fen)s,
        %(weight_issuer)s, %(weight_switch)s, %(weight_acquirer)s, %(valid_from)s, %(valid_to)s);

-- name: lock_proposal
SELECT state, proposer FROM fee_proposal WHERE proposal_no = %(proposal_no)s FOR UPDATE;

-- name: proposed_rules
SELECT r.line, m.merchant_id, r.merchant_no, r.category, r.account_kind, r.rate_ppm, r.minimum_fen, r.cap_fen, r.weight_issuer, r.weight_switch,
       r.weight_acquirer, r.valid_from, r.valid_to, r.rule_no
  FROM fee_proposal_rule r LEFT JOIN merchant m USING (merchant_no)
 WHERE r.proposal_no = %(proposal_no)s ORDER BY r.line;

-- name: end_rule
-- The rule whose place a new one takes ends on the day before.
UPDATE fee_rule f
   SET valid_to = %(valid_from)s::date - 1
 WHERE f.merchant_no IS NOT DISTINCT FROM %(merchant_no)s::integer AND f.category IS NOT DISTINCT FROM %(category)s::text
   AND f.account_kind = %(account_kind)s AND f.valid_from < %(valid_from)s::date AND coalesce(f.valid_to, 'infinity') >= %(valid_from)s::date
RETURNING f.rule_no;

-- name: begin_rule
WITH begun AS (
    INSERT INTO fee_rule (merchant_no, category, account_kind, rate_ppm, minimum_fen, cap_fen, weight_issuer, weight_switch, weight_acquirer,
                          valid_from, valid_to)
    SELECT merchant_no, category, account_kind, rate_ppm, minimum_fen, cap_fen, weight_issuer, weight_switch, weight_acquirer, valid_from, valid_to
      FROM fee_proposal_rule WHERE proposal_no = %(proposal_no)s AND line = %(line)s
    RETURNING rule_no
)
UPDATE fee_proposal_rule r SET rule_no = begun.rule_no FROM begun WHERE r.proposal_no = %(proposal_no)s AND r.line = %(line)s
RETURNING r.rule_no;

-- name: decide
UPDATE fee_proposal SET state = %(state)s, decided_at = clock_timestamp(), decider = %(actor)s, note = %(note)s WHERE proposal_no = %(proposal_no)s;

-- name: note_change
INSERT INTO registry_change (actor, subject, change) VALUES (%(actor)s, %(subject)s, %(change)s);

-- name: proposals
SELECT proposal_no, proposed_at, proposer, reason, state, decided_at, decider, note FROM fee_proposal ORDER BY proposal_no DESC LIMIT %(limit)s;

-- name: candidates
-- Every rule there ever was for a merchant's transactions of a kind, the most specific first.
SELECT f.rule_no, CASE WHEN f.merchant_no IS NOT NULL THEN 'merchant' WHEN f.category IS NOT NULL THEN 'category' ELSE 'general' END,
       f.rate_ppm, f.minimum_fen, f.cap_fen, f.weight_issuer, f.weight_switch, f.weight_acquirer, f.valid_from, f.valid_to
  FROM fee_rule f
 WHERE f.account_kind = %(account_kind)s
   AND (f.merchant_no = %(merchant_no)s OR f.category = %(category)s OR (f.merchant_no IS NULL AND f.category IS NULL))
 ORDER BY f.merchant_no IS NULL, f.category IS NULL, f.valid_from;

-- name: frozen_rule
-- What a closed day froze.
SELECT rule_no, rate_ppm, minimum_fen, cap_fen, weight_issuer, weight_switch, weight_acquirer
  FROM clearing_rule
 WHERE business_date = %(day)s AND rule_date = %(day)s AND merchant_no = %(merchant_no)s AND account_kind = %(account_kind)s
   AND (SELECT state FROM business_day WHERE business_date = %(day)s) = 2;

-- name: closed_days
SELECT business_date FROM business_day WHERE state = 2 AND business_date BETWEEN %(since)s AND %(until)s ORDER BY business_date;

-- name: trial_rules
CREATE TEMPORARY TABLE trial_rule ON COMMIT DROP AS
SELECT * FROM unnest(%(lines)s::integer[], %(merchants)s::integer[], %(categories)s::text[], %(kinds)s::smallint[], %(rates)s::integer[],
                     %(minimums)s::bigint[], %(caps)s::bigint[], %(issuers)s::integer[], %(switches)s::integer[], %(acquirers)s::integer[])
       AS t (line, merchant_no, category, account_kind, rate_ppm, minimum_fen, cap_fen, weight_issuer, weight_switch, weight_acquirer);

-- name: trial_terms
-- For each kind of item of the days: the most specific of the rules on trial and of those that they leave in force.
CREATE TEMPORARY TABLE trial_term ON COMMIT DROP AS
SELECT k.business_date, k.merchant_no, k.account_kind, k.rule_date, k.rule_no IS NULL AS without_now, r.line IS NULL AND r.rule_no IS NULL AS without_then,
       r.line, coalesce(r.rate_ppm, 0) AS rate_ppm, coalesce(r.minimum_fen, 0) AS minimum_fen, r.cap_fen, coalesce(r.weight_issuer, 7) AS weight_issuer,
       coalesce(r.weight_switch, 1) AS weight_switch, coalesce(r.weight_acquirer, 2) AS weight_acquirer
  FROM clearing_rule k
  JOIN clearing_merchant m USING (business_date, merchant_no)
  LEFT JOIN LATERAL (
       SELECT every.*
         FROM (SELECT t.line, NULL::integer AS rule_no, t.merchant_no, t.category, t.rate_ppm, t.minimum_fen, t.cap_fen, t.weight_issuer, t.weight_switch,
                      t.weight_acquirer
                 FROM trial_rule t WHERE t.account_kind = k.account_kind
               UNION ALL
               SELECT NULL, f.rule_no, f.merchant_no, f.category, f.rate_ppm, f.minimum_fen, f.cap_fen, f.weight_issuer, f.weight_switch, f.weight_acquirer
                 FROM fee_rule f
                WHERE f.account_kind = k.account_kind AND k.rule_date BETWEEN f.valid_from AND coalesce(f.valid_to, 'infinity')
                  AND NOT EXISTS (SELECT FROM trial_rule t
                                   WHERE t.account_kind = f.account_kind AND t.merchant_no IS NOT DISTINCT FROM f.merchant_no
                                     AND t.category IS NOT DISTINCT FROM f.category)) AS every
        WHERE every.merchant_no = k.merchant_no OR every.category = m.category OR (every.merchant_no IS NULL AND every.category IS NULL)
        ORDER BY every.merchant_no IS NULL, every.category IS NULL
        LIMIT 1) AS r ON true
 WHERE k.business_date = ANY(%(days)s);

-- name: unused_rules
SELECT line FROM trial_rule EXCEPT SELECT line FROM trial_term ORDER BY line;

-- name: trial_totals
SELECT c.merchant_id, c.category, c.account_kind, count(*), sum(abs(c.effect_fen))::bigint, sum(c.fee_fen)::bigint, sum(c.issuer_fee_fen)::bigint,
       sum(c.switch_fee_fen)::bigint, sum(f.fee_fen)::bigint,
       sum(f.fee_fen * t.weight_issuer / (t.weight_issuer + t.weight_switch + t.weight_acquirer))::bigint,
       sum(f.fee_fen * t.weight_switch / (t.weight_issuer + t.weight_switch + t.weight_acquirer))::bigint,
       count(*) FILTER (WHERE t.without_now), count(*) FILTER (WHERE t.without_then)
  FROM clearing_charge c
  JOIN trial_term t USING (business_date, merchant_no, account_kind, rule_date)
 CROSS JOIN LATERAL (SELECT fee_of(c.effect_fen, t.rate_ppm, t.minimum_fen, t.cap_fen) AS fee_fen) AS f
 WHERE c.business_date = ANY(%(days)s)
 GROUP BY c.merchant_id, c.category, c.account_kind
 ORDER BY c.merchant_id, c.account_kind;

-- name: freeze_subsidies
INSERT INTO clearing_subsidy SELECT %(day)s, s.* FROM subsidies_of_day(%(day)s) AS s;

-- name: add_subsidy_rule
INSERT INTO subsidy_rule (sponsor_id, discount, merchant_no, industry, line, rate_ppm, ride_cap_fen, day_cap_fen, valid_from, valid_to)
VALUES (%(sponsor_id)s, %(discount)s, %(merchant_no)s, %(industry)s, %(line)s, %(rate_ppm)s, %(ride_cap_fen)s, %(day_cap_fen)s, %(valid_from)s,
        %(valid_to)s)
RETURNING rule_no;

-- name: end_subsidy_rule
UPDATE subsidy_rule SET valid_to = %(last)s
 WHERE rule_no = %(rule_no)s AND valid_from <= %(last)s AND coalesce(valid_to, 'infinity') >= %(last)s
RETURNING rule_no;

-- name: list_subsidy_rules
SELECT s.rule_no, s.sponsor_id, s.discount, m.merchant_id, s.industry, s.line, s.rate_ppm, s.ride_cap_fen, s.day_cap_fen, s.valid_from, s.valid_to
  FROM subsidy_rule s LEFT JOIN merchant m USING (merchant_no) ORDER BY s.rule_no;

-- name: subsidies
SELECT c.business_date, c.sponsor_id, c.rule_no, m.merchant_id, c.ride_count, c.discount_fen, c.asked_fen, c.subsidy_fen
  FROM clearing_subsidy c JOIN clearing_merchant m USING (business_date, merchant_no)
 WHERE c.business_date BETWEEN %(since)s AND %(until)s
 ORDER BY c.business_date, c.sponsor_id, c.rule_no, m.merchant_id
 LIMIT %(limit)s;
