"""The long files as SQL: which column stands in which field of CM, MR and SS. PostgreSQL sorts and formats, we pass lines on.

The view `clearing_charge` (aliased c) has one row per transaction with its fee; the widths come from the layouts.
"""

from switch.clearing.layouts import LAYOUTS, sql_line
from switch.domain.transactions import Kind

_UNDOING = f"({Kind.VOID.value}, {Kind.REFUND.value}, {Kind.COMPLETION_VOID.value})"
_COMPLETING = f"({Kind.COMPLETION.value}, {Kind.COMPLETION_VOID.value}, {Kind.COMPLETION_ADVICE.value})"
_LOCAL = "INTERVAL '8 hours'"  # Asia/Shanghai has no daylight saving

_MTI = (
    f"CASE c.kind WHEN {Kind.REVERSAL.value} THEN '0400' WHEN {Kind.REFUND.value} THEN '0220'"
    f" WHEN {Kind.COMPLETION_ADVICE.value} THEN '0220' WHEN {Kind.UPLOAD.value} THEN '0320' ELSE '0200' END"
)
# A reversal carries its original's code: taking money back undoes a purchase (00), giving it again undoes a void (20).
_PROCESSING = (
    f"CASE WHEN c.kind IN {_UNDOING} OR (c.kind = {Kind.REVERSAL.value} AND c.effect_fen > 0) THEN '20' ELSE '00' END"
    " || lpad(c.account_kind::text, 2, '0') || '00'"
)
_CONDITION = (
    f"CASE WHEN CASE c.kind WHEN {Kind.REVERSAL.value} THEN coalesce(o.original_kind, 0) ELSE c.kind END IN {_COMPLETING}"
    " THEN '06' ELSE '00' END"
)
# The operator answers terminals under its acquirer code (field 32); other acquirers have only their number.
_AGENT = "CASE c.acquirer_id WHEN c.own_id THEN c.acquirer_code ELSE c.acquirer_id END"
# Signed from the member's side: what it gets as the issuer, what it pays as the acquirer.
_RECEIVABLE = "CASE WHEN c.issuer_id = %(member)s THEN c.issuer_fee_fen ELSE 0 END"
_PAYABLE = "CASE WHEN c.acquirer_id = %(member)s THEN -c.issuer_fee_fen ELSE 0 END"
_SWITCHING = "CASE WHEN c.acquirer_id = %(member)s THEN -c.switch_fee_fen ELSE 0 END"

_CM = sql_line(
    LAYOUTS["CM"],
    {
        "acquiring_agent": _AGENT,
        "forwarding_institution": _AGENT,
        "trace": "c.stan",
        "transmitted_at": "to_char(c.at AT TIME ZONE " + _LOCAL + ", 'MMDDHH24MISS')",
        "pan": "CASE WHEN c.issuer_id = %(member)s THEN c.issuer_pan ELSE c.pan END",  # a bank's number is for itself
        "amount": "abs(c.effect_fen)",
        "partial_amount": "'0'",
        "cardholder_fee": "'0'",
        "mti": _MTI,
        "processing_code": _PROCESSING,
        "category": "c.category",
        "terminal": "t.terminal_id",
        "merchant": "c.merchant_id",
        "rrn": "c.rrn",
        "condition": _CONDITION,
        "auth_code": "c.auth_code",
        "receiving_institution": "c.issuer_id",
        "original_trace": "coalesce(o.original_stan, 0)",
        "response": "'00'",
        "entry_mode": "CASE c.entry_mode WHEN '' THEN '000' ELSE c.entry_mode END",
        "fee_receivable": _RECEIVABLE,
        "fee_payable": _PAYABLE,
        "switching_fee": _SWITCHING,
        "message_flag": "'0'",
        "card_sequence": "'1'",
        "read_capability": "'5'",
        "ic_condition": "'0'",
        "original_at": "coalesce(to_char(o.original_at AT TIME ZONE " + _LOCAL + ", 'MMDDHH24MISS'), '0')",
        "issuing_institution": "c.issuer_id",
        "region": "'0'",
        "terminal_type": "'01'",
        "eci": "'00'",
        "instalment_fee": "'0'",
        "other": "c.other",
    },
)

_MR = sql_line(
    LAYOUTS["MR"],
    {
        "line_no": "'0'",  # counted by whoever splits the lines: a window function would format them in one process
        "merchant": "c.merchant_id",
        "terminal": "t.terminal_id",
        "batch_no": "c.batch_no",
        "trace": "c.stan",
        "rrn": "c.rrn",
        "account_kind": "c.account_kind",
        "card": "left(c.pan, 6) || repeat('*', length(c.pan) - 10) || right(c.pan, 4)",
        "amount": "c.effect_fen",
        "fee": "(-c.fee_fen)",
        "net": "(c.effect_fen - c.fee_fen)",
        "date": "to_char(c.local_time, 'YYYYMMDD')",
        "time": "to_char(c.local_time, 'HH24MISS')",
        "clearing_date": "to_char(c.business_date, 'YYYYMMDD')",
        "response": "'00'",
    },
)

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

_CHARGES = (
    "FROM clearing_charge c LEFT JOIN terminal t USING (terminal_no)"
    " LEFT JOIN clearing_original o ON o.business_date = %(day)s AND o.entry_no = c.entry_no"
)

# Lines of one member, in the order in which the switch decided.
MEMBER_LINES = (
    f"COPY (SELECT {_CM} {_CHARGES} WHERE c.business_date = %(day)s"
    " AND (c.issuer_id = %(member)s OR c.acquirer_id = %(member)s) ORDER BY c.at, c.entry_no) TO STDOUT"
)

# Lines of many merchants one after the other, each in the order in which the switch decided, without their line numbers.
MERCHANT_LINES = (
    f"COPY (SELECT {_MR} FROM clearing_charge c LEFT JOIN terminal t USING (terminal_no) WHERE c.business_date = %(day)s"  # noqa: S608
    " AND (%(every)s OR c.merchant_no = ANY(%(merchants)s::integer[]))"
    " ORDER BY c.merchant_no, c.at, c.entry_no) TO STDOUT"
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
