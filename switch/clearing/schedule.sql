-- When the service closes a day by itself (schedule.py).

-- name: look
-- One statement, so that the clock is read once: days that have ended and are not closed, the oldest first, and whether batches of theirs are still open.
WITH clock AS MATERIALIZED (SELECT clock_timestamp() AS now)
SELECT clock.now, d.business_date, d.ends_at,
       EXISTS (SELECT FROM terminal_batch b WHERE b.state <> 2 AND b.opened_on <= d.business_date)
  FROM clock
  LEFT JOIN business_day d ON d.state < 2 AND d.ends_at <= clock.now
 ORDER BY d.business_date
 LIMIT %(limit)s;
