-- Closed days, continued: what follows from the sums of a day. Who settles, fees as posted, the float, and which files there are.

-- name: clearing_positions
-- says: each institution's position is what it issued and acquired, with the fees between them; with the centre all are zero
-- rows: clearing_position, clearing_summary
WITH @closed,
flow AS (
    SELECT business_date, s.issuer_id, m.acquirer_id, sum(s.item_count) AS items, sum(s.amount_fen) AS fen, sum(s.issuer_fee_fen) AS issuer_fee,
           sum(s.switch_fee_fen) AS switch_fee, rank() OVER (PARTITION BY business_date ORDER BY min(s.first_at), min(s.first_entry)) AS place
      FROM clearing_summary s JOIN closed USING (business_date) JOIN clearing_merchant m USING (business_date, merchant_no)
     GROUP BY business_date, s.issuer_id, m.acquirer_id
), side AS (
    SELECT business_date, issuer_id AS institution_id, place * 2 AS place, items AS issued, -fen AS issued_fen, 0 AS acquired, 0 AS acquired_fen,
           issuer_fee AS received, 0 AS paid FROM flow
    UNION ALL
    SELECT business_date, acquirer_id, place * 2 + 1, 0, 0, items, fen, 0, -(issuer_fee + switch_fee) FROM flow
), want AS (
    SELECT business_date, rank() OVER (PARTITION BY business_date ORDER BY min(place)) AS ordinal, institution_id, sum(issued) AS issuing_count,
           sum(issued_fen) AS issuing_fen, sum(acquired) AS acquiring_count, sum(acquired_fen) AS acquiring_fen, sum(received) AS issuer_fee_fen,
           sum(paid) AS fees_paid_fen, sum(issued_fen + acquired_fen + received + paid) AS net_fen
      FROM side GROUP BY business_date, institution_id
), kept AS (SELECT k.* FROM clearing_position k JOIN closed USING (business_date))
SELECT 'clearing_position', format('%%s on %%s', coalesce(k.institution_id, w.institution_id), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.institution_id IS NULL THEN 'no row' ELSE w::text END, CASE WHEN k.institution_id IS NULL THEN 'no row' ELSE k::text END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.institution_id = k.institution_id
 WHERE k.institution_id IS NULL OR w.institution_id IS NULL
    OR (k.ordinal, k.issuing_count, k.issuing_fen, k.acquiring_count, k.acquiring_fen, k.issuer_fee_fen, k.fees_paid_fen, k.net_fen)
       IS DISTINCT FROM
       (w.ordinal, w.issuing_count, w.issuing_fen, w.acquiring_count, w.acquiring_fen, w.issuer_fee_fen, w.fees_paid_fen, w.net_fen)
UNION ALL
SELECT 'clearing_position', 'all of ' || business_date, 'zero with the centre', sum(fen) || ' fen'
  FROM (SELECT business_date, net_fen AS fen FROM kept
        UNION ALL SELECT business_date, switch_fee FROM flow) AS every
 GROUP BY business_date HAVING sum(fen) <> 0

-- name: fee_postings
-- says: a closed day's fee postings are the shares of its fees, each payer to each receiver
-- rows: posting, clearing_summary, clearing_interop
WITH @closed,
share AS (
    SELECT s.business_date, s.payable_code::integer AS payer, CASE s.payable_code WHEN 2101 THEN s.merchant_no ELSE m.acquirer_id::bigint END AS payer_no,
           part.to_id IN (c.own_id, c.centre_id) AS ours, part.to_id, part.fen
      FROM clearing_summary s
      JOIN closed c ON c.business_date = s.business_date
      JOIN clearing_merchant m ON m.business_date = s.business_date AND m.merchant_no = s.merchant_no
     CROSS JOIN LATERAL (VALUES (s.issuer_id, s.issuer_fee_fen), (m.acquirer_id, s.acquirer_fee_fen),
                                (CASE WHEN s.account_kind = 50 AND s.issuer_id <> c.own_id AND c.interop_id <> '' THEN c.interop_id ELSE c.centre_id END,
                                 s.switch_fee_fen))
           AS part (to_id, fen)
    UNION ALL
    SELECT i.business_date, 2102, i.institution_id::bigint, true, c.own_id, i.issuer_fee_fen
      FROM clearing_interop i JOIN closed c ON c.business_date = i.business_date
), owed AS (
    SELECT business_date, payer, payer_no, CASE WHEN ours THEN 6001 ELSE 2102 END AS receiver,
           CASE WHEN ours THEN 0 ELSE to_id::bigint END AS receiver_no, fen FROM share
), want AS (
    SELECT business_date, payer, payer_no, receiver, receiver_no, sum(fen) AS fen
      FROM owed
     WHERE payer <> receiver OR payer_no <> receiver_no
     GROUP BY business_date, payer, payer_no, receiver, receiver_no HAVING sum(fen) <> 0
), directed AS (
    SELECT business_date, CASE WHEN fen > 0 THEN payer ELSE receiver END AS debit_code, CASE WHEN fen > 0 THEN payer_no ELSE receiver_no END AS debit_owner,
           CASE WHEN fen > 0 THEN receiver ELSE payer END AS credit_code, CASE WHEN fen > 0 THEN receiver_no ELSE payer_no END AS credit_owner,
           sum(abs(fen)) AS fen, count(*) AS lines
      FROM want GROUP BY 1, 2, 3, 4, 5
), posted AS (
    SELECT p.business_date, p.debit_code::integer AS debit_code, p.debit_owner, p.credit_code::integer AS credit_code, p.credit_owner, sum(p.amount_fen) AS fen,
           count(*) AS lines, min(p.entry_no) AS entry_no
      FROM posting p JOIN closed USING (business_date)
     WHERE p.debit_code IN (2101, 2102, 6001) AND p.credit_code IN (2101, 2102, 6001)
     GROUP BY 1, 2, 3, 4, 5
)
SELECT 'posting', format('%%s, fee of %%s from %%s/%%s to %%s/%%s', coalesce('entry ' || p.entry_no, 'no entry'),
              coalesce(p.business_date, w.business_date), coalesce(p.debit_code, w.debit_code), coalesce(p.debit_owner, w.debit_owner),
              coalesce(p.credit_code, w.credit_code), coalesce(p.credit_owner, w.credit_owner)),
       coalesce(w.fen || ' fen', 'none'), coalesce(format('%%s fen in %%s', p.fen, p.lines), 'none')
  FROM posted p
  FULL JOIN directed w
    ON w.business_date = p.business_date AND w.debit_code = p.debit_code AND w.debit_owner = p.debit_owner
   AND w.credit_code = p.credit_code AND w.credit_owner = p.credit_owner
 WHERE (p.fen, p.lines) IS DISTINCT FROM (w.fen, w.lines)

-- name: clearing_float
-- says: the float statement of a closed day is all postings and accepted records up to it; 9001 is grey records still open
-- rows: clearing_float, posting, purse_record
WITH @closed,
moved AS (
    SELECT business_date, code, sum(debit) AS debit, sum(credit) AS credit
      FROM (SELECT business_date, debit_code::integer AS code, amount_fen AS debit, 0 AS credit FROM posting
            UNION ALL SELECT business_date, credit_code, 0, amount_fen FROM posting
            UNION ALL SELECT business_date, 2002, amount_fen, 0 FROM purse_record WHERE result IN ('10', '00')
            UNION ALL SELECT business_date, credit_code, 0, amount_fen FROM purse_record WHERE result IN ('10', '00')
            UNION ALL SELECT business_date, 9001, amount_fen, 0 FROM purse_record WHERE result = '04'
            UNION ALL SELECT business_date, 9001, 0, amount_fen FROM purse_record WHERE result IN ('00', '94')
               AND entry_no NOT IN (SELECT entry_no FROM dispute_event WHERE what = 'DONE' AND action = '07')) AS every
     WHERE code IS NOT NULL
     GROUP BY business_date, code
), want AS (
    SELECT c.business_date, n.code, coalesce(sum(m.debit - m.credit) FILTER (WHERE m.business_date < c.business_date), 0) AS opening_fen,
           coalesce(sum(m.debit) FILTER (WHERE m.business_date = c.business_date), 0) AS debit_fen,
           coalesce(sum(m.credit) FILTER (WHERE m.business_date = c.business_date), 0) AS credit_fen,
           coalesce(sum(m.debit - m.credit), 0) AS closing_fen
      FROM closed c
     CROSS JOIN unnest(ARRAY[1001, 1002, 1101, 1102, 1103, 2001, 2002, 2003, 2101, 2102, 2201, 6001, 9001]) AS n (code)
      LEFT JOIN moved m ON m.code = n.code AND m.business_date <= c.business_date
     GROUP BY c.business_date, n.code
), kept AS (
    SELECT k.business_date, k.code::integer AS code, k.opening_fen, k.debit_fen, k.credit_fen, k.closing_fen
      FROM clearing_float k JOIN closed USING (business_date))
SELECT 'clearing_float', format('%%s on %%s', coalesce(k.code, w.code), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.code IS NULL THEN 'no row' ELSE format('opening %%s, debit %%s, credit %%s, closing %%s fen', w.opening_fen, w.debit_fen, w.credit_fen, w.closing_fen) END,
       CASE WHEN k.code IS NULL THEN 'no row' ELSE format('opening %%s, debit %%s, credit %%s, closing %%s fen', k.opening_fen, k.debit_fen, k.credit_fen, k.closing_fen) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.code = k.code
 WHERE (k.opening_fen, k.debit_fen, k.credit_fen, k.closing_fen) IS DISTINCT FROM (w.opening_fen, w.debit_fen, w.credit_fen, w.closing_fen)

-- name: clearing_files
-- says: there is a file for every member, sender and merchant of a closed day, with the count and total of its lines
-- rows: clearing_file
WITH @closed,
@offline,
member AS (
    SELECT business_date, institution_id, min(place) AS place
      FROM (SELECT business_date, institution_id, ordinal AS place FROM clearing_position JOIN closed USING (business_date)
            UNION ALL SELECT business_date, own_id, 2147483647 FROM closed) AS every
     GROUP BY business_date, institution_id
), merchants AS (
    SELECT s.business_date, s.merchant_no, m.merchant_id, m.acquirer_id, s.issuer_id, s.account_kind, s.item_count, s.volume_fen, s.fee_fen,
           s.credit_net_fen
      FROM clearing_summary s
      JOIN closed c ON c.business_date = s.business_date
      JOIN clearing_merchant m ON m.business_date = s.business_date AND m.merchant_no = s.merchant_no
), quick AS (
    SELECT o.business_date, m.acquirer_id, o.merchant_no, o.confirmed_fen + o.adjusted_fen - coalesce(f.fee_fen, 0) + coalesce(x.fee_fen, 0) AS net_fen
      FROM clearing_offline o
      JOIN closed c ON c.business_date = o.business_date
      JOIN clearing_merchant m ON m.business_date = o.business_date AND m.merchant_no = o.merchant_no
      LEFT JOIN (SELECT business_date, merchant_no, sum(fee_fen) AS fee_fen FROM merchants WHERE account_kind = 50 GROUP BY 1, 2) AS f
        ON f.business_date = o.business_date AND f.merchant_no = o.merchant_no
      -- Fees of what cases moved are no fees of records.
      LEFT JOIN (SELECT business_date, merchant_no, sum(fee_fen) AS fee_fen FROM clearing_adjusted GROUP BY 1, 2) AS x
        ON x.business_date = o.business_date AND x.merchant_no = o.merchant_no
), sender AS (
    -- A record in a file counts for whoever sent the file.
    SELECT business_date, acquirer_id, sum(came) AS came, sum(came_fen) AS came_fen, sum(listed) AS listed, sum(listed_fen) AS listed_fen,
           sum(files) AS files, sum(files_fen) AS files_fen
      FROM (SELECT o.business_date, coalesce(l.acquirer_id, m.acquirer_id) AS acquirer_id,
                   count(*) FILTER (WHERE o.taken_now AND o.batch_no <> 0) AS came,
                   sum(CASE WHEN o.taken_now AND o.batch_no <> 0 THEN o.fen ELSE 0 END) AS came_fen,
                   count(*) FILTER (WHERE o.result <> '10') AS listed, sum(CASE WHEN o.result <> '10' THEN o.fen ELSE 0 END) AS listed_fen,
                   0 AS files, 0 AS files_fen
              FROM offline o
              LEFT JOIN clearing_merchant m ON m.business_date = o.business_date AND m.merchant_no = o.merchant_no
              LEFT JOIN clearing_source_line l ON l.business_date = o.taken_on AND l.entry_no = o.taken_entry
             GROUP BY 1, 2
            UNION ALL
            SELECT f.business_date, f.sender_id, 0, 0, 0, 0, count(*), sum(f.total_fen)
              FROM received_file f JOIN closed c ON c.business_date = f.business_date
             WHERE left(f.name, 2) = 'XF' GROUP BY 1, 2) AS every
     WHERE acquirer_id IS NOT NULL
     GROUP BY business_date, acquirer_id
), planned AS (
    SELECT m.business_date, 'NP' AS kind, m.institution_id AS receiver, m.institution_id AS party, NULL::integer AS party_no,
           count(p.net_fen) AS lines, coalesce(sum(greatest(p.net_fen, 0)), 0) AS fen, 1 AS part, m.place::bigint AS place, 1 AS file
      FROM member m LEFT JOIN clearing_position p ON p.business_date = m.business_date GROUP BY 1, 2, 3, 4, m.place
    UNION ALL
    SELECT m.business_date, 'CM', m.institution_id, m.institution_id, NULL, coalesce(sum(s.item_count), 0), coalesce(sum(s.volume_fen), 0), 1,
           m.place, 2
      FROM member m
      LEFT JOIN (SELECT business_date, issuer_id AS member_id, item_count, volume_fen FROM merchants
                 UNION ALL
                 SELECT business_date, acquirer_id, item_count, volume_fen FROM merchants WHERE acquirer_id <> issuer_id) AS s
        ON s.business_date = m.business_date AND s.member_id = m.institution_id
     GROUP BY m.business_date, m.institution_id, m.place
    UNION ALL
    SELECT business_date, 'NS', acquirer_id, acquirer_id, NULL, CASE WHEN came > 0 THEN 1 ELSE 0 END + files, came_fen + files_fen, 2, acquirer_id::bigint, 1 FROM sender
    UNION ALL
    SELECT s.business_date, 'QS', s.acquirer_id, s.acquirer_id, NULL, count(q.net_fen), coalesce(sum(greatest(q.net_fen, 0)), 0), 2, s.acquirer_id::bigint, 2
      FROM sender s LEFT JOIN quick q ON q.business_date = s.business_date AND q.acquirer_id = s.acquirer_id
     GROUP BY s.business_date, s.acquirer_id
    UNION ALL
    SELECT business_date, 'SS', acquirer_id, acquirer_id, NULL, listed, listed_fen, 2, acquirer_id::bigint, 3 FROM sender
    UNION ALL
    SELECT business_date, 'MR', lpad(merchant_no::text, 8, '0'), merchant_id, merchant_no, sum(item_count), sum(credit_net_fen), 3, merchant_no, 1
      FROM merchants GROUP BY business_date, merchant_no, merchant_id
    UNION ALL
    SELECT t.business_date, 'TR', lpad(t.merchant_no::text, 8, '0'), m.merchant_id, t.merchant_no, count(*), sum(t.paid_fen), 4, t.merchant_no, 1
      FROM clearing_transit t
      JOIN closed c ON c.business_date = t.business_date
      JOIN clearing_merchant m ON m.business_date = t.business_date AND m.merchant_no = t.merchant_no
     GROUP BY t.business_date, t.merchant_no, m.merchant_id
    UNION ALL
    -- Whether there was a centre to forward to is not kept, so there may be no such file; who the centre was is said by the file.
    SELECT f.business_date, 'FH', f.party, f.party, NULL, count(r.entry_no), coalesce(sum(r.amount_fen), 0), 5, 1, 1
      FROM clearing_file f
      JOIN closed c ON c.business_date = f.business_date
      LEFT JOIN (purse_record r
                 JOIN clearing_merchant m ON m.business_date = r.business_date AND m.merchant_no = r.merchant_no
                 JOIN institution i ON i.institution_id = m.acquirer_id AND i.role <> 'CITY')
        ON r.business_date = f.business_date AND r.result = '11'
     WHERE left(f.name, 2) = 'FH'
     GROUP BY f.business_date, f.party
    UNION ALL
    -- One answer for each file of the interop centre that ended on the day; then, for each centre, grey records of files that had ended before.
    SELECT f.business_date, 'DT', f.sender_id, f.sender_id, f.file_no, f.line_count, f.total_fen, 6, f.file_no, 1
      FROM received_file f JOIN closed c ON c.business_date = f.business_date
     WHERE left(f.name, 2) = 'DF' AND f.status = '00'
    UNION ALL
    SELECT v.business_date, 'DT', f.sender_id, f.sender_id, NULL, count(*), sum(v.amount_fen), 7, f.sender_id::bigint, 1
      FROM purse_record v
      JOIN closed c ON c.business_date = v.business_date
      JOIN received_chunk k ON v.original_entry >= k.first_entry AND v.original_entry < k.first_entry + k.line_count AND k.business_date = v.original_date
      JOIN received_file f ON f.file_no = k.file_no AND f.business_date < v.business_date
     WHERE v.batch_no = -1 AND v.original_entry IS NOT NULL
     GROUP BY v.business_date, f.sender_id
    UNION ALL
    -- The lines themselves are held against the cases by dispute_lines.
    SELECT l.business_date, 'ER', l.member_id, l.member_id, NULL, count(*), sum(greatest(l.amount_fen, 0)), 8, l.member_id::bigint, 0
      FROM clearing_dispute l JOIN closed c ON c.business_date = l.business_date
     GROUP BY l.business_date, l.member_id
    UNION ALL
    SELECT h.business_date, CASE WHEN h.base IS NULL THEN 'BF' ELSE 'BI' END, h.acquirer_id, h.acquirer_id, NULL,
           (SELECT count(*) FROM hot_list_entry e
             WHERE e.from_version <= h.version AND coalesce(e.until_version > h.version, true)
               AND NOT EXISTS (SELECT FROM hot_list_entry o WHERE o.asn = e.asn AND o.level = e.level AND o.from_version <= h.base
                                  AND coalesce(o.until_version > h.base, true)))
           + (SELECT count(*) FROM hot_list_entry o
               WHERE o.from_version <= h.base AND coalesce(o.until_version > h.base, true)
                 AND NOT EXISTS (SELECT FROM hot_list_entry e WHERE e.asn = o.asn AND e.from_version <= h.version
                                    AND coalesce(e.until_version > h.version, true)))
           + CASE WHEN h.base IS NULL THEN 0 ELSE 1 END, h.version, 9, h.acquirer_id::bigint, 1
      FROM clearing_hot_list h JOIN closed c ON c.business_date = h.business_date
), want AS (
    SELECT business_date, kind || CASE WHEN kind IN ('FH', 'DT', 'BF', 'BI') THEN c.own_id ELSE c.centre_id END || receiver || to_char(business_date, 'YYYYMMDD')
           || CASE kind WHEN 'DT' THEN lpad((row_number() OVER (PARTITION BY business_date, kind ORDER BY part, place))::text, 3, '0') ELSE '001' END AS name,
           party, party_no, lines, fen,
           row_number() OVER (PARTITION BY business_date ORDER BY part, place, file) AS ordinal
      FROM planned JOIN closed c USING (business_date)
), kept AS (SELECT k.* FROM clearing_file k JOIN closed USING (business_date))
SELECT 'clearing_file', format('%%s of %%s', coalesce(k.name, w.name), coalesce(k.business_date, w.business_date)),
       CASE WHEN w.name IS NULL THEN 'no row' ELSE format('no. %%s for %%s/%%s: %%s lines, %%s fen', w.ordinal, w.party, w.party_no, w.lines, w.fen) END,
       CASE WHEN k.name IS NULL THEN 'no row' WHEN k.sm3 IS NULL THEN 'not written'
            ELSE format('no. %%s for %%s/%%s: %%s lines, %%s fen', k.ordinal, k.party, k.party_no, k.line_count, k.total_fen) END
  FROM kept k
  FULL JOIN want w ON w.business_date = k.business_date AND w.name = k.name
 WHERE k.sm3 IS NULL OR w.name IS NULL
    OR (k.ordinal, k.party, k.party_no, k.line_count, k.total_fen) IS DISTINCT FROM (w.ordinal, w.party, w.party_no, w.lines, w.fen)
