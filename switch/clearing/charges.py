"""CM and MR, the files with a line for every transaction: what of a charge stands in which field.

The view `clearing_charge` (aliased c) has one row per transaction with its fee. PostgreSQL finds and sorts, numpy writes: columns.py.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from switch.clearing.columns import (
    LOCAL_US,
    NO_INSTANT,
    Column,
    Lines,
    Numbers,
    Rows,
    Table,
    Texts,
    local_parts,
    numbers,
    table_lines,
)
from switch.clearing.layouts import LAYOUTS
from switch.domain.transactions import Kind

_ADJUSTING: Final = [
    Kind.CREDIT_ADJUSTMENT.value,
    Kind.DEBIT_ADJUSTMENT.value,
    Kind.CHARGEBACK.value,
    Kind.REPRESENTMENT.value,
]
_UNDOING: Final = [
    Kind.VOID.value,
    Kind.REFUND.value,
    Kind.COMPLETION_VOID.value,
    Kind.CREDIT_ADJUSTMENT.value,
    Kind.CHARGEBACK.value,
]
_COMPLETING: Final = [Kind.COMPLETION.value, Kind.COMPLETION_VOID.value, Kind.COMPLETION_ADVICE.value]
_ADVICES: Final = [Kind.REFUND.value, Kind.COMPLETION_ADVICE.value, *_ADJUSTING]


def _number(name: str, expression: str = "", width: int = 8) -> Column:
    return Column(name, expression or f"c.{name}", f"int{width}", width)


def _text(name: str, width: int, expression: str = "") -> Column:
    return Column(name, expression or f"c.{name}", "char", width)


_CHARGE: Final = Table(
    (
        Column("at", "c.at", "timestamptz"),
        Column("local_time", "c.local_time", "timestamp"),
        _number("effect_fen"),
        _number("fee_fen"),
        _number("issuer_fee_fen"),
        _number("switch_fee_fen"),
        _number("merchant_no", width=4),
        _number("batch_no", width=4),
        _number("stan", width=4),
        _number("kind", width=2),
        _number("account_kind", width=2),
        _text("pan", 19),
        _text("issuer_pan", 19),
        _text("category", 4),
        _text("terminal_id", 8, "t.terminal_id"),
        _text("merchant_id", 15),
        _text("rrn", 12),
        _text("auth_code", 6),
        _text("entry_mode", 3),
        # The operator answers terminals under its acquirer code (field 32); other acquirers have only their number.
        _text("agent", 11, "CASE c.acquirer_id WHEN c.own_id THEN c.acquirer_code ELSE c.acquirer_id END"),
        _text("issuer_id", 8),
        _text("acquirer_id", 8),
        _text("other", 14),
        _number("original_stan", "coalesce(o.original_stan, 0)", 4),
        _number("original_kind", "coalesce(o.original_kind, 0)", 2),
        Column("original_at", "coalesce(o.original_at, '-infinity')", "timestamptz"),
    )
)

_CHARGES: Final = (
    f"COPY (SELECT {_CHARGE.select} FROM clearing_charge c LEFT JOIN terminal t USING (terminal_no)"  # noqa: S608
    " LEFT JOIN clearing_original o ON o.business_date = %(day)s AND o.entry_no = c.entry_no WHERE c.business_date = %(day)s"
)

# What these members and merchants, or all, find in their files, in the order in which the switch decided.
CHARGES: Final = (
    f"{_CHARGES} AND (%(every)s OR c.issuer_id = ANY(%(members)s::text[]) OR c.acquirer_id = ANY(%(members)s::text[])"
    " OR c.merchant_no = ANY(%(merchants)s::integer[]))"
    " ORDER BY c.at, c.entry_no) TO STDOUT (FORMAT BINARY)"
)

# Some entries of the day, in their order.
CHARGES_OF_ENTRIES: Final = (
    f"{_CHARGES} AND c.entry_no = ANY(%(entries)s::bigint[]) ORDER BY c.entry_no) TO STDOUT (FORMAT BINARY)"
)


def charges(messages: Sequence[bytes | bytearray | memoryview]) -> Rows:
    """Rows of CHARGES."""
    return _CHARGE.read(messages)


def member_lines(rows: Rows, member: str) -> Lines:
    """CM of one member: the lines of its rows among these, perhaps none. Fees are signed from its side."""
    name = member.encode()
    issues, acquires = rows["issuer_id"] == name, rows["acquirer_id"] == name
    wanted = issues | acquires
    if not wanted.all():
        rows, issues, acquires = rows[wanted], issues[wanted], acquires[wanted]
    kind, account, effect = (numbers(rows, column) for column in ("kind", "account_kind", "effect_fen"))
    reverses = kind == Kind.REVERSAL.value
    # A reversal carries its original's code: taking money back undoes a purchase (00), giving it again undoes a void (20).
    undoes = np.isin(kind, _UNDOING) | (reverses & (effect > 0))
    completes = np.isin(np.where(reverses, numbers(rows, "original_kind"), kind), _COMPLETING)
    issuer_fee, switch_fee = numbers(rows, "issuer_fee_fen"), numbers(rows, "switch_fee_fen")
    mti = np.select(
        [reverses, np.isin(kind, _ADVICES), kind == Kind.UPLOAD.value], [b"0400", b"0220", b"0320"], b"0200"
    )
    mode = rows["entry_mode"]
    return table_lines(
        LAYOUTS["CM"],
        {
            "acquiring_agent": rows["agent"],
            "forwarding_institution": rows["agent"],
            "trace": numbers(rows, "stan"),
            "transmitted_at": _day_and_time(numbers(rows, "at")),
            "pan": np.where(issues, rows["issuer_pan"], rows["pan"]),  # a bank's number is for itself
            "amount": np.abs(effect),
            "partial_amount": 0,
            "cardholder_fee": 0,
            "mti": mti,
            "processing_code": np.where(undoes, 200_000, 0) + account * 100,
            "category": rows["category"],
            "terminal": rows["terminal_id"],
            "merchant": rows["merchant_id"],
            "rrn": rows["rrn"],
            "condition": np.where(completes, b"06", b"00"),
            "auth_code": rows["auth_code"],
            "receiving_institution": rows["issuer_id"],
            "original_trace": numbers(rows, "original_stan"),
            "response": "00",
            "entry_mode": np.where(mode == b"   ", b"000", mode),
            "fee_receivable": np.where(issues, issuer_fee, 0),
            "fee_payable": np.where(acquires, -issuer_fee, 0),
            "switching_fee": np.where(acquires, -switch_fee, 0),
            "message_flag": "0",
            "card_sequence": 1,
            "read_capability": "5",
            "ic_condition": "0",
            "original_at": _day_and_time(numbers(rows, "original_at")),
            "issuing_institution": rows["issuer_id"],
            "region": "0",
            "terminal_type": "01",
            "eci": "00",
            "instalment_fee": 0,
            "other": rows["other"],
        },
        len(rows),
    )


def merchant_lines(rows: Rows, clearing_date: str) -> Lines:
    """MR of these rows, whosever they are, still without line numbers."""
    day, clock = local_parts(numbers(rows, "local_time"))
    effect, fee = numbers(rows, "effect_fen"), numbers(rows, "fee_fen")
    return table_lines(
        LAYOUTS["MR"],
        {
            "line_no": 0,
            "merchant": rows["merchant_id"],
            "terminal": rows["terminal_id"],
            "batch_no": numbers(rows, "batch_no"),
            "trace": numbers(rows, "stan"),
            "rrn": rows["rrn"],
            "account_kind": numbers(rows, "account_kind"),
            "card": _masked(rows["pan"]),
            "amount": effect,
            "fee": -fee,
            "net": effect - fee,
            "date": day,
            "time": clock,
            "clearing_date": clearing_date,
            "response": "00",
        },
        len(rows),
    )


def _day_and_time(instants: Numbers) -> Numbers:
    """MMDDhhmmss in Shanghai as a number; 0 where there is no instant."""
    there = instants != NO_INSTANT
    day, clock = local_parts(np.where(there, instants, 0) + LOCAL_US)
    return np.where(there, day % 10_000 * 1_000_000 + clock, 0)


def _masked(pans: Texts) -> Texts:
    """First six and last four digits, in the 20 characters of a line."""
    digits = np.ascontiguousarray(pans).view(np.uint8).reshape(len(pans), -1)
    shown = np.full((len(pans), 20), ord(" "), np.uint8)
    lengths = (digits != ord(" ")).sum(axis=1)
    for length in np.unique(lengths):
        of = lengths == length
        shown[of, :6] = digits[of, :6]
        shown[of, 6 : length - 4] = ord("*")
        shown[of, length - 4 : length] = digits[of, length - 4 : length]
    return shown.view("S20")[:, 0]
