-- The hot list as files for acquirers (hot_list_files.py).

-- name: freeze_hot_lists
-- Acquirers of the day that want it, where it has changed since their last file.
INSERT INTO clearing_hot_list (business_date, acquirer_id, version, base)
SELECT %(day)s, a.acquirer_id, newest.version, before.version
  FROM (SELECT DISTINCT acquirer_id FROM clearing_merchant WHERE business_date = %(day)s AND acquirer_id = ANY(%(wanted)s)) AS a
 CROSS JOIN (SELECT max(version) AS version FROM hot_list_version) AS newest
  LEFT JOIN LATERAL (
       SELECT h.version FROM clearing_hot_list h
        WHERE h.acquirer_id = a.acquirer_id AND h.business_date < %(day)s ORDER BY h.business_date DESC LIMIT 1) AS before ON true
 WHERE newest.version > coalesce(before.version, 0);

-- name: plan_hot_lists
SELECT h.acquirer_id, h.base IS NULL, h.version, count(l.asn)
  FROM clearing_hot_list h
 CROSS JOIN LATERAL clearing_hot_list_lines(h.base, h.version) AS l
 WHERE h.business_date = %(day)s
 GROUP BY h.acquirer_id, h.base, h.version ORDER BY h.acquirer_id;
