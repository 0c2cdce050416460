-- Money that people and partners' files moved.

-- name: bookings
-- says: each booking is of the day it was booked on, by two people where they are named, and has its one posting between the accounts of its event
-- rows: booking, posting
WITH event (name, debit_code, credit_code) AS (
    VALUES ('merchant_paid_out', 2101, 1001), ('merchant_payout_returned', 1001, 2101), ('bank_settled', 1001, 1101), ('bank_repaid', 1101, 1001),
           ('bank_share_set_off', 2102, 1101), ('interop_paid', 2102, 1001), ('interop_received', 1001, 1102), ('interop_set_off', 2102, 1102),
           ('fund_settled', 1001, 1103), ('money_unexplained', 1001, 2201), ('money_sent_back', 2201, 1001)
)
SELECT CASE WHEN fault IN ('its posting', 'one posting') AND p.entry_no IS NOT NULL THEN 'posting' ELSE 'booking' END,
       format('entry %%s of %%s', b.entry_no, b.business_date), fault,
       format('%%s of %%s fen by %%s, checked by %%s; %%s', b.event, b.amount_fen, b.actor, b.checker,
              coalesce(format('posting %%s of %%s, line %%s: %%s fen from %%s/%%s to %%s/%%s', p.entry_no, p.business_date, p.line, p.amount_fen, p.debit_code,
                              p.debit_owner, p.credit_code, p.credit_owner), 'no posting'))
  FROM booking b
  LEFT JOIN business_day d ON d.business_date = b.business_date
  LEFT JOIN event e ON e.name = b.event
  LEFT JOIN posting p ON p.shard = 0 AND p.entry_no = b.entry_no
 CROSS JOIN LATERAL (SELECT CASE
       WHEN e.name IS NULL THEN 'an event that is booked'
       WHEN d.business_date IS NULL OR b.booked_at < d.begins_at OR b.booked_at >= d.ends_at THEN 'the day that it was booked on'
       WHEN lower(b.actor) = lower(b.checker) THEN 'another person who checked'
       WHEN p.entry_no IS NULL OR p.line <> 0 THEN 'one posting'
       WHEN (p.business_date, p.debit_code::integer, p.credit_code::integer, p.amount_fen)
            IS DISTINCT FROM (b.business_date, e.debit_code, e.credit_code, b.amount_fen) THEN 'its posting' END AS fault) AS f
 WHERE fault IS NOT NULL
