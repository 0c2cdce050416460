-- The seal of a day. %(day)s is the business date.

-- name: begin_seal
INSERT INTO clearing_seal (business_date, secret) VALUES (%(day)s, %(secret)s) ON CONFLICT (business_date) DO NOTHING;

-- name: seal
SELECT secret, leaf_count, root, last_entry, shards, document, sm3 FROM clearing_seal WHERE business_date = %(day)s;

-- name: before
-- The last day that was sealed before.
SELECT business_date, encode(sm3, 'hex') FROM clearing_seal
 WHERE business_date < %(day)s AND sm3 IS NOT NULL ORDER BY business_date DESC LIMIT 1;

-- name: files
SELECT name, encode(sm3, 'hex'), size_bytes FROM clearing_file WHERE business_date = %(day)s ORDER BY ordinal;

-- name: add_blocks
INSERT INTO clearing_seal_block (business_date, block_no, entry_no, shard, line, leaf_count, root)
SELECT %(day)s, n - 1, entry_no, shard, line, leaf_count, root
  FROM unnest(%(entry_nos)s::bigint[], %(shards)s::smallint[], %(lines)s::smallint[], %(leaf_counts)s::integer[], %(roots)s::bytea[])
       WITH ORDINALITY AS block (entry_no, shard, line, leaf_count, root, n);

-- name: finish_seal
UPDATE clearing_seal SET leaf_count = %(leaves)s, root = %(root)s, last_entry = %(last_entry)s, shards = %(shards)s, document = %(document)s, sm3 = %(sm3)s
 WHERE business_date = %(day)s AND sm3 IS NULL;

-- name: blocks
SELECT entry_no, shard, line, leaf_count, root FROM clearing_seal_block WHERE business_date = %(day)s ORDER BY block_no;

-- name: summarise_index
-- A block range index knows nothing of pages written since its table was vacuumed, and would have them all read for every range.
SELECT brin_summarize_new_values(to_regclass(%(index)s)) WHERE to_regclass(%(index)s) IS NOT NULL;

-- name: outline
-- How many rows there are by number, so that ranges of numbers can be read that fit into memory, and which shards have postings.
SELECT entry_no / %(width)s, NULL::smallint, count(*) FROM journal WHERE business_date = %(day)s GROUP BY 1
UNION ALL
SELECT entry_no / %(width)s, shard, count(*) FROM posting WHERE business_date = %(day)s GROUP BY 1, 2
UNION ALL
SELECT entry_no / %(width)s, NULL, count(*) FROM purse_record WHERE business_date = %(day)s GROUP BY 1;

-- name: leaves
-- The leaves of a range of numbers, one a line, in the order of the tree. A posting stands with its entry; one without an entry, or with a
-- line above 0, is a leaf of its own. What is not shown is behind the commitment: the salt is the leaf's own, so that opening one leaf opens no other.
-- None of the texts shown can hold a tab or line feed: they came as fields of ISO 8583, which are checked for it.
SELECT convert_to(string_agg(leaf, E'\n' ORDER BY entry_no, shard, line), 'UTF8')
  FROM (SELECT entry_no, shard, line,
               concat_ws(E'\t', 'E', entry_no, shard, line, %(day)s::date,
                   coalesce(p.debit_code::text, ''), coalesce(p.debit_owner::text, ''), coalesce(p.credit_code::text, ''),
                   coalesce(p.credit_owner::text, ''), coalesce(p.amount_fen::text, ''),
                   coalesce(j.kind::text, ''), coalesce(j.class::text, ''), coalesce(j.terminal_no::text, ''),
                   coalesce(j.batch_no::text, ''), coalesce(j.stan::text, ''), coalesce(j.merchant_no::text, ''),
                   coalesce(j.account_id::text, ''),
                   coalesce(left(j.pan, 6) || repeat('*', length(j.pan) - 10) || right(j.pan, 4), ''),
                   coalesce(j.amount_fen::text, ''), coalesce(j.effect_fen::text, ''), coalesce(j.answer, ''), coalesce(j.rrn, ''),
                   coalesce(j.auth_code, ''), coalesce(j.entry_mode, ''), coalesce(j.decided_at::text, ''),
                   coalesce(j.original_date::text, ''), coalesce(j.original_entry::text, ''), coalesce(octet_length(j.extra)::text, ''),
                   encode(sha256(sha256(%(secret)s || int8send(entry_no) || int2send(shard) || int2send(line))
                                 || coalesce(j.digest || convert_to(coalesce(j.pan, ''), 'UTF8') || '\x00'
                                             || coalesce(sha256(j.extra), ''), '')), 'hex')) AS leaf
          FROM (SELECT *, 0::smallint AS line
                  FROM journal WHERE business_date = %(day)s AND entry_no BETWEEN %(first)s AND %(last)s) AS j
          FULL JOIN (SELECT shard, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen
                       FROM posting
                      WHERE business_date = %(day)s AND shard = ANY(%(shards)s::smallint[])
                        AND entry_no BETWEEN %(first)s AND %(last)s) AS p
         USING (shard, entry_no, line)
        UNION ALL
        SELECT entry_no, shard, 0,
               concat_ws(E'\t', 'R', entry_no, shard, 0, %(day)s::date,
                   result, coalesce(card_no::text, ''),
                   CASE WHEN card IS NULL THEN '' ELSE left(c.digits, 6) || repeat('*', length(c.digits) - 10) || right(c.digits, 4) END,
                   coalesce(amount_fen::text, ''), coalesce(balance_fen::text, ''), coalesce(credit_code::text, ''),
                   coalesce(credit_owner::text, ''), coalesce(psam::text, ''), coalesce(psam_serial::text, ''),
                   coalesce(record_serial::text, ''), coalesce(atc::text, ''), coalesce(record_kind::text, ''),
                   coalesce(happened_at::text, ''), received_at, terminal_no, merchant_no, batch_no,
                   coalesce(original_date::text, ''), coalesce(original_entry::text, ''),
                   encode(sha256(sha256(%(secret)s || int8send(entry_no) || int2send(shard) || int2send(0::smallint)) || raw), 'hex'))
          FROM purse_record
         CROSS JOIN LATERAL (SELECT substr(encode(substr(raw, 7, 10), 'hex'), 2) AS digits) AS c
         WHERE business_date = %(day)s AND entry_no BETWEEN %(first)s AND %(last)s) AS every;

-- name: entries_of_number
-- Which of these numbers are an entry or record of the day under this reference.
SELECT entry_no FROM journal WHERE business_date = %(day)s AND entry_no = ANY(%(numbers)s::bigint[]) AND rrn = %(rrn)s
UNION
SELECT entry_no FROM purse_record
 WHERE business_date = %(day)s AND entry_no = ANY(%(numbers)s::bigint[]) AND reference_of(entry_no, received_at) = %(rrn)s;

-- name: entries_of_reference
-- A reversal or load confirm repeats the reference of its original, which may be of another day: then all of the day is read.
SELECT entry_no FROM journal WHERE business_date = %(day)s AND rrn = %(rrn)s ORDER BY entry_no LIMIT 64;

-- name: openings
-- What the commitments of an entry are over, without the card number.
SELECT shard, 0::smallint AS line, digest, sha256(extra), NULL::bytea AS raw FROM journal
 WHERE business_date = %(day)s AND entry_no = %(entry_no)s AND pan IS NOT NULL
UNION ALL
SELECT shard, 0, NULL, NULL, raw FROM purse_record WHERE business_date = %(day)s AND entry_no = %(entry_no)s AND card IS NOT NULL;
