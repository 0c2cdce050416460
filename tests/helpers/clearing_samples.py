"""A small valid file of every type, made by the layouts and the writer."""

from binascii import crc_hqx
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from switch.clearing.files import FileName, Head, render
from switch.clearing.layouts import LAYOUTS, Total, share_of_total, write_line
from switch.domain.calendar import SHANGHAI
from tests.helpers.clearing_day import CENTRE, OWN, record_96

DAY = date(2024, 3, 15)
CREATED = datetime(2024, 3, 15, 23, 30, tzinfo=SHANGHAI)
SOURCE = f"XF{OWN}{CENTRE}20240315001"
LIST_VERSION = 7


def _record(number: int) -> str:
    raw = record_96(number, number, 100 + number, 1000 + number)
    return (raw[:94] + crc_hqx(raw[:94], 0xFFFF).to_bytes(2)).hex().upper()


_CM: dict[str, Any] = {
    "acquiring_agent": "49993350", "forwarding_institution": "49993350", "trace": 3, "transmitted_at": "0315081530",
    "pan": "3133500100000001239", "amount": 1403, "partial_amount": 0, "cardholder_fee": 0, "mti": "0200",
    "processing_code": "001000", "category": "4111", "terminal": "33500001", "merchant": "993350054110001",
    "rrn": "407508000004", "condition": "00", "auth_code": "A00200", "receiving_institution": "99993350",
    "original_trace": 0, "response": "00", "entry_mode": "051", "fee_receivable": 0, "fee_payable": -3,
    "switching_fee": 0, "message_flag": "0", "card_sequence": 1, "read_capability": "5", "ic_condition": "0",
    "original_at": 0, "issuing_institution": "99993350", "region": "0", "terminal_type": "01", "eci": "00",
    "instalment_fee": 0, "other": "",
}  # fmt: skip

# What differs between the lines is a function of their number.
_LINES: dict[str, Any] = {
    **{kind: lambda n: {"record": _record(n)} for kind in ("XF", "FH", "DF")},
    "DT": lambda n: {"record": _record(n), "result": "10", "result_date": "20240316"},
    "NS": lambda n: {"file": SOURCE, "count": n, "amount": 100 * n, "status": "00"},
    "SS": lambda n: {
        "source_file": SOURCE, "source_line": n, "result": "02", "decided_on": "20240315", "merchant": "993350054110001",
        "terminal": "33500001", "asn": "03133500100000001239", "atc": n, "psam": "335000000017", "psam_serial": 256 + n,
        "balance_before": 6234, "amount": 200 * n, "date": "20240315", "time": "081530", "tti": "06", "tac": "680C2A4B",
        "grey": "0",
    },
    "QS": lambda n: {
        "merchant": "993350054110001", "clearing_date": "20240315", "confirmed_count": 4, "confirmed": 550 * n,
        "refused_count": 4, "refused": 530, "adjusted_count": 1, "adjusted": 10, "adjust_refused_count": 0,
        "adjust_refused": 0, "fee": 3, "net": 550 * n + 7, "settlement_date": "20240318",
    },
    "CM": lambda n: {**_CM, "trace": n, "amount": 1000 * n},
    "ER": lambda n: {
        "case_no": f"C{n}", "action": "04", "line": write_line(LAYOUTS["CM"], _CM)[1:], "amount": 1403 * (-1) ** n,
        "reason": "01", "original_date": "20240314",
    },
    "MR": lambda n: {
        "merchant": "993350054110001", "terminal": "33500001", "batch_no": 1, "trace": n, "rrn": "407508000004",
        "account_kind": 10, "card": "313350*********1239", "amount": 100 * n * (-1) ** n, "fee": -n * (-1) ** n,
        "net": 99 * n * (-1) ** n, "date": "20240315", "time": "081530", "clearing_date": "20240315", "response": "00",
    },
    "NP": lambda n: {
        "institution": f"9999331{n}", "issuing_count": 2, "issuing": -500, "acquiring_count": 2, "acquiring": 500,
        "issuer_fee": 7 * n, "fees_paid": -8, "net": 7 * n - 8,
    },
    "TR": lambda n: {
        "merchant": "993350041110002", "ride_date": "20240315", "industry": "02", "line": "0007", "single_count": 3,
        "complete_count": 2, "incomplete_count": 1, "entry_count": 2, "open_count": 1, "transfer_count": 1,
        "amount": 600 * n, "maximum": 300, "full_fare": 600 * n + 150, "transfer_discount": 100, "other_discount": 50,
        "clearing_date": "20240315",
    },
    "BF": lambda n: {"operation": "A", "asn": f"0313350010000000{n:04d}", "level": "01", "effective_date": "20240315"},
    "BI": lambda n: {
        "operation": "VDA"[n - 1], "asn": "6".zfill(20) if n == 1 else f"0313350010000000{n:04d}", "level": "00",
        "effective_date": "20240315",
    },
}  # fmt: skip
assert _LINES.keys() == LAYOUTS.keys()

_PARTIES = {"XF": (OWN, CENTRE), "FH": (OWN, "99991111"), "DT": ("99991111", OWN), "MR": (CENTRE, "00000001")}


def values_of(kind: str, count: int = 3) -> list[dict[str, Any]]:
    """Lines of a type as values."""
    return [{"line_no": n, **_LINES[kind](n)} for n in range(1, count + 1)]


def file_of(
    kind: str, lines: list[dict[str, Any]] | None = None, *, changes: Mapping[str, Any] | None = None
) -> tuple[str, bytes]:
    """Name and bytes of a valid file; changes: to the values of its second line, header and trailer following them."""
    lines = values_of(kind) if lines is None else lines
    if changes:
        lines[1] |= changes
    layout = LAYOUTS[kind]
    total = sum(share_of_total(layout, values) for values in lines)
    name = FileName(kind, *_PARTIES.get(kind, (CENTRE, OWN)), DAY)
    head = Head(name, CREATED, len(lines), LIST_VERSION if layout.total is Total.LIST_VERSION else total)
    return str(name), render(head, [write_line(layout, values) for values in lines])
