-- Files on their way: signatures, files sent again, hot lists, what partners were sent and what they sent.

-- name: file_signatures
-- says: a signature is over the digest of a closed day's file, of one that was sent again, or of a centre's
-- rows: file_signature
SELECT 'file_signature', s.name, coalesce('over ' || encode(w.sm3, 'hex'), 'none'), 'over ' || encode(s.sm3, 'hex')
  FROM file_signature s
  LEFT JOIN (SELECT name, sm3 FROM clearing_file UNION ALL SELECT name, sm3 FROM clearing_resend UNION ALL SELECT name, sm3 FROM interop_file) AS w
    ON w.name = s.name
 WHERE w.sm3 IS DISTINCT FROM s.sm3
   -- A centre stores a digest last, so that a run that was cut off writes such a file again.
   AND NOT EXISTS (SELECT FROM interop_file i WHERE i.name = s.name AND i.sm3 IS NULL)

-- name: file_resends
-- says: a file sent again is the next generation of a file, behind all that the day had for its receiver, as long as that, and was made in the business day it names
-- rows: clearing_resend
WITH numbered AS (
    SELECT r.*, row_number() OVER (PARTITION BY left(name, 26) ORDER BY resend_no)
                + (SELECT max(right(f.name, 3)::integer) FROM clearing_file f
                    WHERE f.business_date = r.of_date AND left(f.name, 26) = left(r.original, 26)) AS generation
      FROM clearing_resend r
)
SELECT 'clearing_resend', r.name,
       CASE WHEN f.name IS NULL THEN 'a file that there is'
            ELSE format('%%s%%s of %%s bytes, made in its day', left(f.name, 26), lpad(r.generation::text, 3, '0'), f.size_bytes) END,
       format('%%s of %%s bytes, made at %%s for %%s', r.name, r.size_bytes, r.made_at, r.business_date)
  FROM numbered r
  LEFT JOIN clearing_file f ON f.business_date = r.of_date AND f.name = r.original
  LEFT JOIN business_day d ON d.business_date = r.business_date
 WHERE f.name IS NULL OR r.name <> left(f.name, 26) || lpad(r.generation::text, 3, '0') OR r.size_bytes IS DISTINCT FROM f.size_bytes
    OR (r.made_at >= d.begins_at AND r.made_at < d.ends_at) IS NOT TRUE

-- name: hot_list_files
-- says: the hot list that an acquirer gets with a day's files leads from the one of his last file to a later one that there was
-- rows: clearing_hot_list
WITH ordered AS (
    SELECT h.*, lag(version) OVER (PARTITION BY acquirer_id ORDER BY business_date) AS before FROM clearing_hot_list h
)
SELECT 'clearing_hot_list', format('%%s on %%s', h.acquirer_id, h.business_date), format('a later version, from %%s', coalesce(h.before, 0)),
       format('version %%s, from %%s', h.version, coalesce(h.base, 0))
  FROM ordered h
  LEFT JOIN hot_list_version v ON v.version = h.version
 WHERE h.base IS DISTINCT FROM h.before OR h.version <= coalesce(h.before, 0) OR v.version IS NULL

-- name: deliveries
-- says: what a partner gets is a file as it was stored, in an order without holes, and its end is a receipt of his
-- rows: delivery
WITH numbered AS (
    SELECT d.*, row_number() OVER (PARTITION BY partner ORDER BY number) AS place FROM delivery d
), file AS (
    SELECT name, business_date AS of_date, sm3, size_bytes FROM clearing_file
    UNION ALL SELECT name, of_date, sm3, size_bytes FROM clearing_resend
    UNION ALL SELECT name, clearing_date, sm3, size_bytes FROM interop_file WHERE sm3 IS NOT NULL
)
SELECT 'delivery', format('%%s no. %%s', d.partner, d.number),
       format('no. %%s, %%s of %%s bytes on %%s, %%s', d.place, encode(f.sm3, 'hex'), f.size_bytes, f.of_date,
              coalesce((SELECT string_agg(r.outcome, ' then ' ORDER BY r.read_at) FROM delivery_receipt r
                         WHERE r.partner = d.partner AND r.file IN (d.name || '.ack', d.name || '.rej')), 'without receipt')),
       format('no. %%s, %%s of %%s bytes on %%s, %%s', d.number, encode(d.sm3, 'hex'), d.size_bytes, d.of_date, d.state)
  FROM numbered d
  LEFT JOIN file f ON f.name = d.name
 WHERE d.number <> d.place OR (f.sm3, f.size_bytes, f.of_date) IS DISTINCT FROM (d.sm3, d.size_bytes, d.of_date)
    OR (d.state = 'ACKNOWLEDGED') <> EXISTS (SELECT FROM delivery_receipt r WHERE r.partner = d.partner AND r.file = d.name || '.ack' AND r.outcome = 'ACKNOWLEDGED')
    OR (d.state = 'REJECTED' AND NOT EXISTS (SELECT FROM delivery_receipt r WHERE r.partner = d.partner AND r.file = d.name || '.rej' AND r.outcome = 'REJECTED'))

-- name: delivery_days
-- says: as many files of a day are in a partner's queue as were put there when it was queued
-- rows: delivery_day
SELECT 'delivery_day', format('%%s on %%s', q.partner, q.business_date), count(f.name) || ' files', q.files || ' files'
  FROM delivery_day q
  LEFT JOIN (delivery d JOIN clearing_file f ON f.business_date = d.of_date AND f.name = d.name)
    ON d.partner = q.partner AND d.of_date = q.business_date
 GROUP BY q.partner, q.business_date, q.files
HAVING count(f.name) <> q.files

-- name: delivery_inbox
-- says: what a partner was told is taken was taken, with those bytes
-- rows: delivery_inbox
SELECT 'delivery_inbox', format('%%s of %%s', i.name, i.partner), 'a file that was not taken', i.state
  FROM delivery_inbox i
 WHERE i.state = 'TAKEN'
   AND NOT EXISTS (SELECT FROM received_file f WHERE f.name = i.name AND f.sm3 = i.sm3 AND f.status = '00' AND f.business_date IS NOT NULL)
