-- Cases of rules for risk. They move no money, but people act on what they say.

-- name: risk_cases
-- says: a case has as many records and as much money as its hits, and one that is open is the only one of its matter
-- rows: risk_case, risk_hit
SELECT 'risk_case', format('case_no %%s', coalesce(c.case_no, h.case_no)),
       format('%%s records, %%s fen, hits of rule %%s', coalesce(h.hits, 0), coalesce(h.fen, 0), coalesce(h.rules, c.rule)),
       CASE WHEN c.case_no IS NULL THEN 'no case' ELSE format('%%s records, %%s fen, rule %%s', c.hits, c.amount_fen, c.rule) END
  FROM risk_case c
  FULL JOIN (SELECT case_no, count(*) AS hits, sum(amount_fen) AS fen, string_agg(DISTINCT rule, ', ') AS rules
               FROM risk_hit GROUP BY case_no) AS h ON h.case_no = c.case_no
 WHERE (c.hits, c.amount_fen, c.rule) IS DISTINCT FROM (h.hits, h.fen, h.rules)

-- name: risk_hits
-- says: a marked record is there, on its day, with its amount, and is of the card, reader or terminal that its case is about
-- rows: risk_hit, purse_record
SELECT 'risk_hit', format('rule %%s, entry %%s', h.rule, h.entry_no),
       CASE WHEN r.entry_no IS NULL THEN 'a record'
            ELSE format('%%s fen of %%s, of the %%s of case %%s', coalesce(r.amount_fen, 0), r.business_date, c.matter, h.case_no) END,
       CASE WHEN r.entry_no IS NULL THEN 'none'
            ELSE format('%%s fen of %%s%%s', h.amount_fen, h.business_date,
                        CASE WHEN p.owner IS DISTINCT FROM c.owner THEN ', of another ' || c.matter ELSE '' END) END
  FROM risk_hit h
  JOIN risk_case c ON c.case_no = h.case_no
  LEFT JOIN purse_record r ON r.entry_no = h.entry_no
 CROSS JOIN LATERAL (SELECT CASE c.matter WHEN 'card' THEN r.card WHEN 'reader' THEN r.psam ELSE r.terminal_no END AS owner) AS p
 WHERE (r.business_date, coalesce(r.amount_fen, 0), p.owner) IS DISTINCT FROM (h.business_date, h.amount_fen, c.owner)
