-- A closed day for other people's accounting tools. %(day)s is the business date.

-- name: float
SELECT code, opening_fen, debit_fen, credit_fen, closing_fen FROM clearing_float WHERE business_date = %(day)s ORDER BY code;

-- name: closed
SELECT c.own_id FROM clearing_day c JOIN business_day b USING (business_date) WHERE c.business_date = %(day)s AND b.state = 2;

-- name: sums
-- kind: of the journal entry; 0 of a posting without one; that of an upload for an offline record, with decided for one that was grey.
SELECT kind, decided, debit_code, credit_code, count(*), sum(amount_fen)::bigint
  FROM (SELECT coalesce(j.kind, 0) AS kind, false AS decided, p.debit_code, p.credit_code, p.amount_fen
          FROM posting p
          LEFT JOIN journal j ON j.business_date = %(day)s AND j.shard = p.shard AND j.entry_no = p.entry_no
         WHERE p.business_date = %(day)s
        UNION ALL
        SELECT %(upload)s, original_entry IS NOT NULL, 2002, credit_code, amount_fen
          FROM purse_record
         WHERE business_date = %(day)s AND result IN ('10', '00') AND amount_fen > 0) AS moved
 GROUP BY kind, decided, debit_code, credit_code
 ORDER BY kind, decided, debit_code, credit_code;

-- name: postings
SELECT kind, decided, debit_code, debit_owner, credit_code, credit_owner, amount_fen, entry_no, line
  FROM (SELECT coalesce(j.kind, 0) AS kind, false AS decided, p.debit_code, p.debit_owner, p.credit_code, p.credit_owner, p.amount_fen,
               p.entry_no, p.line
          FROM posting p
          LEFT JOIN journal j ON j.business_date = %(day)s AND j.shard = p.shard AND j.entry_no = p.entry_no
         WHERE p.business_date = %(day)s
        UNION ALL
        SELECT %(upload)s, original_entry IS NOT NULL, 2002, card_no, credit_code, credit_owner, amount_fen, entry_no, 0
          FROM purse_record
         WHERE business_date = %(day)s AND result IN ('10', '00') AND amount_fen > 0) AS moved
 ORDER BY entry_no, line;
