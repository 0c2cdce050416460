"""Files of offline records as SQL: which column stands in which field of SS and FH. PostgreSQL sorts and formats, we pass lines on.

The widths come from the layouts. CM and MR have a line for every transaction of the day and are written by charges.py.
"""

from switch.clearing.layouts import LAYOUTS, sql_line

# By day; then the list of what came without a file, then the files by name.
_SOURCE_ORDER = "ORDER BY r.taken_on, l.source_file NULLS FIRST, l.source_line"
_RAW_TAC = "upper(encode(substr(r.raw, 56, 4), 'hex'))"

_SS = sql_line(
    LAYOUTS["SS"],
    {
        "line_no": f"row_number() OVER ({_SOURCE_ORDER})",
        "source_file": "coalesce(l.source_file, 'XF' || m.acquirer_id || d.centre_id || to_char(r.taken_on, 'YYYYMMDD') || '000')",
        "source_line": "l.source_line",
        "result": "r.result",
        "decided_on": "to_char(r.business_date, 'YYYYMMDD')",
        "merchant": "coalesce(m.merchant_id, repeat('0', 15))",
        "terminal": "coalesce(t.terminal_id, repeat('0', 8))",
        "asn": "upper(encode(substr(r.raw, 7, 10), 'hex'))",
        "atc": "coalesce(r.atc, 0)",
        "psam": "upper(encode(substr(r.raw, 46, 6), 'hex'))",
        "psam_serial": "coalesce(r.psam_serial, 0)",
        "balance_before": "coalesce(r.balance_fen, 0)",
        "amount": "r.amount_fen",
        "date": "coalesce(to_char(r.happened_at, 'YYYYMMDD'), '0')",
        "time": "coalesce(to_char(r.happened_at, 'HH24MISS'), '0')",
        "tti": "upper(encode(substr(r.raw, 3, 1), 'hex'))",
        "tac": _RAW_TAC,
        "grey": f"CASE WHEN r.record_kind = 1 OR {_RAW_TAC} IN ('FFFFFFFF', '00000000') THEN '1' ELSE '0' END",
    },
)

# Lines of one acquirer's refusals, in the order of the source files.
REFUSAL_LINES = (
    f"COPY (SELECT {_SS} FROM clearing_offline_record r"  # noqa: S608
    " LEFT JOIN clearing_merchant m USING (business_date, merchant_no) JOIN clearing_day d USING (business_date)"
    " LEFT JOIN terminal t USING (terminal_no)"
    " JOIN clearing_source_line l ON l.business_date = r.taken_on AND l.entry_no = r.taken_entry"
    " WHERE r.business_date = %(day)s AND coalesce(l.acquirer_id, m.acquirer_id) = %(acquirer)s AND r.result <> '10'"
    f" {_SOURCE_ORDER}) TO STDOUT"
)

_FH = sql_line(
    LAYOUTS["FH"],
    {
        "line_no": "row_number() OVER (ORDER BY r.received_at, r.entry_no)",
        "record": "upper(encode(r.raw, 'hex'))",
    },
)

# Other cities' cards of a day, in order of arrival.
FORWARDED_LINES = (
    f"COPY (SELECT {_FH} FROM purse_record r JOIN clearing_merchant m USING (business_date, merchant_no)"  # noqa: S608
    " JOIN institution i ON i.institution_id = m.acquirer_id AND i.role <> 'CITY'"
    " WHERE r.business_date = %(day)s AND r.result = '11' ORDER BY r.received_at, r.entry_no) TO STDOUT"
)

# Grey records are decided under their entry in purse_waiting; a later day's decision is not this day's.
_DT = sql_line(
    LAYOUTS["DT"],
    {
        "line_no": "c.first_line + n.place",
        "record": "upper(encode(r.raw, 'hex'))",
        "result": "coalesce(w.verdict, r.result)",
        "result_date": "to_char(coalesce(w.decided_on, r.business_date), 'YYYYMMDD')",
    },
)

# Every line of a file of the interop centre with its result, in the file's order. The bounds keep it to the days on which lines were taken.
_CHUNKS = "FROM received_chunk WHERE file_no = %(file_no)s"
ANSWER_LINES = (
    f"COPY (SELECT {_DT} FROM received_chunk c CROSS JOIN LATERAL generate_series(0, c.line_count - 1) AS n (place)"  # noqa: S608
    " JOIN purse_record r ON r.business_date = c.business_date AND r.entry_no = c.first_entry + n.place"
    " LEFT JOIN purse_waiting w ON w.entry_no = r.entry_no AND w.decided_on <= %(day)s"
    f" WHERE c.file_no = %(file_no)s AND r.business_date >= (SELECT min(business_date) {_CHUNKS})"
    f" AND r.business_date <= (SELECT max(business_date) {_CHUNKS}) AND r.entry_no >= (SELECT min(first_entry) {_CHUNKS})"
    f" AND r.entry_no < (SELECT max(first_entry + line_count) {_CHUNKS}) ORDER BY c.first_line + n.place) TO STDOUT"
)

_LATER_DT = sql_line(
    LAYOUTS["DT"],
    {
        "line_no": "row_number() OVER (ORDER BY v.original_date, v.original_entry)",
        "record": "upper(encode(v.raw, 'hex'))",
        "result": "v.result",
        "result_date": "to_char(v.business_date, 'YYYYMMDD')",
    },
)

# Grey records among them that were decided on a later day, for the centre that had sent them.
DECIDED_LINES = (
    f"COPY (SELECT {_LATER_DT} FROM purse_record v CROSS JOIN LATERAL ("  # noqa: S608
    "SELECT * FROM received_chunk k WHERE k.first_entry <= v.original_entry ORDER BY k.first_entry DESC LIMIT 1) AS c"
    " JOIN received_file f USING (file_no) WHERE v.business_date = %(day)s AND v.batch_no = -1 AND v.original_entry IS NOT NULL"
    " AND f.business_date < %(day)s AND f.sender_id = %(member)s ORDER BY v.original_date, v.original_entry) TO STDOUT"
)

_ER = sql_line(
    LAYOUTS["ER"],
    {
        "line_no": "d.line_no",
        "case_no": "d.case_text",
        "action": "d.action",
        "line": "d.original_line",
        "amount": "d.amount_fen",
        "reason": "d.reason",
        "original_date": "d.original_date",
    },
)

# What a day says to a member about cases.
DISPUTE_LINES = f"COPY (SELECT {_ER} FROM clearing_dispute d WHERE d.business_date = %(day)s AND d.member_id = %(member)s ORDER BY d.line_no) TO STDOUT"  # noqa: S608
