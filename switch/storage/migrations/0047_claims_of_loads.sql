-- depends: 0046_frozen_rows_at_once
-- A load that had gone back to its source and turned out to be on the card was paid from suspense where the source could not pay again.
-- Should it go back once more, after all, it is suspense that gets it.
ALTER TABLE purse_load ADD COLUMN claimed boolean NOT NULL DEFAULT false;

UPDATE purse_load AS l
   SET claimed = true
  FROM (SELECT v.shard, v.load_no, sum(CASE 2201 WHEN p.credit_code THEN p.amount_fen WHEN p.debit_code THEN -p.amount_fen ELSE 0 END) AS suspense_fen
          FROM purse_load_move v
          JOIN posting p ON p.shard = v.shard AND p.business_date = v.business_date AND p.entry_no = v.entry_no AND p.line = v.line
         GROUP BY v.shard, v.load_no) AS s
 WHERE s.shard = l.shard AND s.load_no = l.entry_no AND l.held = 1 AND s.suspense_fen < 0;

ALTER TABLE purse_load ADD CHECK (held = 1 OR NOT claimed);
