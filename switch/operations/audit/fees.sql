-- Fee rules that were proposed and approved.

-- name: fee_proposals
-- says: what was approved, by another person than the one who proposed, is the rule that it became; what was not has become none
-- rows: fee_proposal, fee_proposal_rule, fee_rule
SELECT CASE WHEN fault = 'the rule that it became' THEN 'fee_proposal_rule' ELSE 'fee_proposal' END, format('proposal %%s, line %%s', p.proposal_no, r.line),
       fault, format('%%s by %%s, decided by %%s, rule %%s', p.state, p.proposer, coalesce(p.decider, 'nobody'), coalesce(r.rule_no::text, 'none'))
  FROM fee_proposal p
  LEFT JOIN fee_proposal_rule r USING (proposal_no)
  LEFT JOIN fee_rule f ON f.rule_no = r.rule_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN r.line IS NULL THEN 'a rule at least'
       WHEN p.state = 'APPROVED' AND (p.decider IS NULL OR lower(p.decider) = lower(p.proposer)) THEN 'another person who approved'
       WHEN (p.state = 'APPROVED') <> (r.rule_no IS NOT NULL) THEN 'a rule where it was approved'
       WHEN p.decided_at < p.proposed_at THEN 'a decision after the proposal'
       WHEN r.rule_no IS NOT NULL
            AND (f.merchant_no, f.category, f.account_kind, f.rate_ppm, f.minimum_fen, f.cap_fen, f.weight_issuer, f.weight_switch, f.weight_acquirer,
                 f.valid_from)
                IS DISTINCT FROM
                (r.merchant_no, r.category, r.account_kind, r.rate_ppm, r.minimum_fen, r.cap_fen, r.weight_issuer, r.weight_switch, r.weight_acquirer,
                 r.valid_from) THEN 'the rule that it became' END AS fault) AS x
 WHERE fault IS NOT NULL

-- name: clearing_subsidies
-- says: what a closed day says that sponsors owe is the part of its rides' discounts that the most specific rule in force gives
-- rows: clearing_subsidy, subsidy_rule
WITH closed AS (SELECT business_date FROM business_day WHERE state = 2),
ride AS (
    SELECT r.business_date, r.merchant_no, get_byte(r.raw, 78) AS industry, upper(encode(substr(r.raw, 80, 2), 'hex')) AS line,
           (get_byte(r.raw, 93) >> 1) & 1 = 1 AS transfer, ('x' || encode(substr(r.raw, 74, 4), 'hex'))::bit(32)::bigint - r.amount_fen AS discount
      FROM (SELECT business_date, merchant_no, raw, amount_fen FROM purse_record WHERE result IN ('10', '00') AND record_kind <> 2 AND batch_no >= 0
            UNION ALL
            SELECT business_date, merchant_no, raw, amount_fen FROM foreign_verdict WHERE result = '00' AND record_kind <> 2) AS r
      JOIN closed USING (business_date)
), matched AS (
    SELECT e.business_date, e.merchant_no, e.discount, k.rule_no, k.sponsor_id, k.day_cap_fen,
           least(div(e.discount::numeric * k.rate_ppm + 500000, 1000000), k.ride_cap_fen) AS asked,
           rank() OVER (PARTITION BY e.n ORDER BY (k.merchant_no IS NOT NULL)::integer * 4 + (k.line IS NOT NULL)::integer * 2
                                                  + (k.industry IS NOT NULL)::integer DESC) AS place
      FROM (SELECT *, row_number() OVER () AS n FROM ride WHERE industry <> 0 AND discount > 0) AS e
      JOIN subsidy_rule k
        ON k.valid_from <= e.business_date AND (k.valid_to IS NULL OR k.valid_to >= e.business_date) AND (k.discount = 'TRANSFER') = e.transfer
       AND (k.merchant_no IS NULL OR k.merchant_no = e.merchant_no) AND (k.industry IS NULL OR k.industry = e.industry) AND (k.line IS NULL OR k.line = e.line)
), want AS (
    SELECT business_date, rule_no, merchant_no, sponsor_id, count(*) AS rides, sum(discount) AS discount, sum(asked) AS asked,
           least(sum(asked), min(day_cap_fen)) AS subsidy
      FROM matched WHERE place = 1 GROUP BY business_date, rule_no, merchant_no, sponsor_id
), kept AS (SELECT c.* FROM clearing_subsidy c JOIN closed USING (business_date))
SELECT 'clearing_subsidy', format('rule %%s, merchant_no %%s, on %%s', coalesce(k.rule_no, w.rule_no), coalesce(k.merchant_no, w.merchant_no),
                                  coalesce(k.business_date, w.business_date)),
       CASE WHEN w.rule_no IS NULL THEN 'no row' ELSE format('%%s rides, %%s, %%s, %%s fen of %%s', w.rides, w.discount, w.asked, w.subsidy, w.sponsor_id) END,
       CASE WHEN k.rule_no IS NULL THEN 'no row'
            ELSE format('%%s rides, %%s, %%s, %%s fen of %%s', k.ride_count, k.discount_fen, k.asked_fen, k.subsidy_fen, k.sponsor_id) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.rule_no = k.rule_no AND w.merchant_no = k.merchant_no
 WHERE (k.ride_count, k.discount_fen, k.asked_fen, k.subsidy_fen, k.sponsor_id)
       IS DISTINCT FROM (w.rides, w.discount, w.asked, w.subsidy, w.sponsor_id)
