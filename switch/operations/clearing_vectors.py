"""Known answers of the suite `clearing`: each operation runs the code that closes a day.

The file vectors stand on each other (an SS names the XF it answers), so an operation may look up others in the document.
What a vector leaves to the registry (which merchant and terminal a PSAM belongs to) is given here.
"""

import io
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from typing import Any

from switch.clearing.fees import FeeRule, Weights, fee_split
from switch.clearing.files import FileName, Head, check_file, parse_name, render
from switch.clearing.float_statement import float_ledger
from switch.clearing.layouts import ACOM, LAYOUTS, Value, share_of_total, write_line
from switch.clearing.netting import Flow, net_positions
from switch.domain.calendar import SHANGHAI, clearing_date, settlement_date, workday_by_lists
from switch.ledger.chart import Event

Json = Mapping[str, Any]
_MERCHANT = "993350054110001"
_TERMINAL = "33500001"


def _rule(given: Json) -> FeeRule:
    weights = given["weights"]
    return FeeRule(
        given["rate_ppm"],
        given.get("minimum", 0),
        given.get("cap"),
        Weights(weights["issuer"], weights["switch"], weights["acquirer"]),
    )


def _split(amount_fen: int, given: Json) -> Json:
    split = fee_split(amount_fen, _rule(given))
    return {
        "fee": split.fee_fen,
        "issuer": split.issuer_fen,
        "switch": split.switch_fen,
        "acquirer": split.acquirer_fen,
        "merchant_net": amount_fen - split.fee_fen,
    }


def _clearing_date(given: Json, _: Json) -> Json:
    day = clearing_date(datetime.fromisoformat(given["host_time"]), time.fromisoformat(given["cutoff"]))
    return {"clearing_date": day.isoformat(), "settlement_date": _settles(day, given).isoformat()}


def _settles(day: date, given: Json) -> date:
    holidays, extra = (
        {date.fromisoformat(text) for text in given[name]} for name in ("holidays", "extra_workdays")
    )
    return settlement_date(day, workday_by_lists(holidays, extra))


def _flows(given: Json) -> list[Flow]:
    flows = []
    for item in given["transactions"]:
        split = fee_split(item["amount"], _rule(given))
        flows.append(
            Flow(item["issuer"], item["acquirer"], 1, item["amount"], split.issuer_fen, split.switch_fen)
        )
    return flows


def _net(given: Json, _: Json) -> Json:
    rows = []
    for flow in _flows(given):
        split = fee_split(flow.amount_fen, _rule(given))
        rows.append(
            {
                "issuer": flow.issuer,
                "acquirer": flow.acquirer,
                "amount": flow.amount_fen,
                "issuer_fee": split.issuer_fen,
                "switch_fee": split.switch_fen,
                "acquirer_keeps": split.acquirer_fen,
            }
        )
    netting = net_positions(_flows(given))
    net = {position.institution: position.net_fen for position in netting.positions}
    return {"rows": rows, "net": net | {"SWITCH": netting.centre_fen}}


def _float(given: Json, _: Json) -> Json:
    ledger = float_ledger((Event(item["event"]), item["amount"]) for item in given["events"])
    postings = []
    for posting in ledger.postings:
        shown: dict[str, Any] = {"event": posting.event.value, "amount": posting.amount_fen}
        if posting.debit is None or posting.credit is None:
            shown["memo_9001"] = posting.memo_fen
        else:
            shown |= {"debit": str(int(posting.debit)), "credit": str(int(posting.credit))}
        postings.append(shown)
    return {
        "postings": postings,
        "balances_debit_positive": {
            str(int(code)): fen for code, fen in ledger.balances_fen.items() if fen != 0
        },
        "purse_float": ledger.purse_float_fen,
        "memo_9001": ledger.memo_fen,
    }


def _cm(given: Json, _: Json) -> Json:
    values = dict(zip((field.name for field in ACOM), given["values"], strict=True))
    assert [field.width for field in ACOM] == given["lengths"], "widths of the 34 fields"
    line = write_line(LAYOUTS["CM"], values)[1:]
    offsets = []
    at = 1
    for field in ACOM:
        offsets.append([at, at + field.width - 1])
        at += field.width + 1
    return {"line": line, "length": len(line), "offsets": offsets}


def _finish(name: FileName, created: datetime, lines: list[Mapping[str, Value]]) -> dict[str, Any]:
    layout = LAYOUTS[name.kind]
    numbered = [{"line_no": number, **values} for number, values in enumerate(lines, 1)]
    total_fen = sum(share_of_total(layout, values) for values in numbered)
    content = render(
        Head(name, created, len(lines), total_fen), (write_line(layout, values) for values in numbered)
    )
    checked = check_file(str(name), io.BytesIO(content))
    assert checked.head.total_fen == total_fen
    return {
        "name": str(name),
        "content": content.decode(),
        "sha_alg": "SM3",
        "total_amount": total_fen,
    }


def _upload(document: Json, name: str | None = None) -> tuple[FileName, datetime, list[bytes]]:
    """The XF file that others answer: its name, its instant and its records."""
    for vector in document["vectors"]:
        if vector["op"] == "file" and vector["in"]["type"] == "XF" and name in (None, vector["out"]["name"]):
            given = vector["in"]
            created = datetime.strptime(given["created"], "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI)
            return (
                parse_name(vector["out"]["name"]),
                created,
                [bytes.fromhex(text) for text in given["records"]],
            )
    raise ValueError("no XF vector to answer")


def _answer_name(kind: str, upload: FileName) -> FileName:
    return FileName(kind, upload.receiver, upload.sender, upload.day)


def _xf(given: Json, _: Json) -> Json:
    day = datetime.strptime(given["date"], "%Y%m%d").replace(tzinfo=SHANGHAI).date()
    created = datetime.strptime(given["created"], "%Y%m%d%H%M%S").replace(tzinfo=SHANGHAI)
    name = FileName(given["type"], given["sender"], given["receiver"], day)
    return _finish(name, created, [{"record": text} for text in given["records"]])


def _ns(given: Json, document: Json) -> Json:
    upload, created, records = _upload(document, given["received_file"])
    amount_fen = sum(int.from_bytes(record[30:34], "big") for record in records)
    line = {"file": str(upload), "count": len(records), "amount": amount_fen, "status": given["status"]}
    return _finish(_answer_name("NS", upload), created, [line])


def _ss(given: Json, document: Json) -> Json:
    upload, created, records = _upload(document, given["source"])
    lines: list[Mapping[str, Value]] = []
    for number, (record, result) in enumerate(zip(records, given["results"], strict=True), 1):
        if result == "10":
            continue
        tac = record[55:59]
        grey = record[1] == 1 or tac in (b"\xff" * 4, bytes(4))
        lines.append(
            {
                "source_file": str(upload),
                "source_line": number,
                "result": result,
                "decided_on": f"{upload.day:%Y%m%d}",
                "merchant": _MERCHANT,
                "terminal": _TERMINAL,
                "asn": record[6:16].hex(),
                "atc": int.from_bytes(record[28:30], "big"),
                "psam": record[45:51].hex(),
                "psam_serial": int.from_bytes(record[51:55], "big"),
                "balance_before": int.from_bytes(record[34:38], "big"),
                "amount": int.from_bytes(record[30:34], "big"),
                "date": record[38:42].hex(),
                "time": record[42:45].hex(),
                "tti": f"{record[2]:02X}",
                "tac": tac.hex().upper(),
                "grey": "1" if grey else "0",
            }
        )
    return _finish(_answer_name("SS", upload), created, lines)


def _qs(given: Json, document: Json) -> Json:
    upload, created, _ = _upload(document)
    rule = FeeRule(given["fee_rate_ppm"])
    confirmed_fen = sum(given["confirmed"])
    fee_fen = sum(fee_split(amount_fen, rule).fee_fen for amount_fen in given["confirmed"])
    net_fen = confirmed_fen - fee_fen
    line: dict[str, Value] = {
        "merchant": given["merchant"],
        "clearing_date": f"{upload.day:%Y%m%d}",
        "confirmed_count": len(given["confirmed"]),
        "confirmed": confirmed_fen,
        "refused_count": given["refused_count"],
        "refused": given["refused_amount"],
        "adjusted_count": 0,
        "adjusted": 0,
        "adjust_refused_count": 0,
        "adjust_refused": 0,
        "fee": fee_fen,
        "net": net_fen,
        "settlement_date": f"{_settles(upload.day, given):%Y%m%d}",
    }
    return _finish(_answer_name("QS", upload), created, [line]) | {"fee": fee_fen, "net": net_fen}


def _np(given: Json, document: Json) -> Json:
    upload, created, _ = _upload(document)
    source = next(vector for vector in document["vectors"] if vector["id"] == given["net_vector"])
    netting = net_positions(_flows(source["in"]))
    lines: list[Mapping[str, Value]] = [
        {
            "institution": position.institution,
            "issuing_count": position.issuing_count,
            "issuing": position.issuing_fen,
            "acquiring_count": position.acquiring_count,
            "acquiring": position.acquiring_fen,
            "issuer_fee": position.issuer_fee_fen,
            "fees_paid": position.fees_paid_fen,
            "net": position.net_fen,
        }
        for position in netting.positions
    ]
    return _finish(_answer_name("NP", upload), created, lines)


_FILES = {"XF": _xf, "FH": _xf, "DF": _xf, "NS": _ns, "SS": _ss, "QS": _qs, "NP": _np}


def _file(given: Json, document: Json) -> Json:
    return _FILES[given["type"]](given, document)


OPERATIONS: Mapping[str, Callable[[Json, Json], Json]] = {
    "fee_split": lambda given, _: _split(given["amount"], given),
    "fee_split_refund": lambda given, _: _split(-given["amount"], given),
    "clearing_date": _clearing_date,
    "net_positions": _net,
    "float_ledger": _float,
    "cm_detail": _cm,
    "file": _file,
}
