-- What a reversal of a completion void must know beyond what a batch reads anyway.

-- name: read_completed_holds
-- The holds of completions that were voided, found by way of the completion: a void is of the same terminal and batch. LATERAL and
-- LIMIT: a fresh partition has no statistics. oldest, newest: of all those days, as in find_keys. After the lock on the account.
SELECT h.entry_no, h.business_date, h.account_id, h.amount_fen, h.frozen_fen, h.expires_at, h.ended_by, h.completed_by
  FROM unnest(%(terminals)b::int[], %(batches)b::int[], %(dates)b::date[], %(entries)b::bigint[])
       AS k (terminal_no, batch_no, day, entry_no)
 CROSS JOIN LATERAL (
       SELECT journal.original_entry
         FROM journal
        WHERE journal.shard = %(shard)b
          AND journal.business_date BETWEEN %(oldest)b::date AND %(newest)b::date
          AND journal.business_date = k.day
          AND journal.terminal_no = k.terminal_no
          AND journal.batch_no = k.batch_no
          AND journal.entry_no = k.entry_no
        LIMIT 1) AS j
  JOIN hold h ON h.shard = %(shard)b AND h.entry_no = j.original_entry;
