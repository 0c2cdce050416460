"""Suite `offline`: classification of EPR1 records, upload fields, blocks of the hot list.

Single records build on those before them in the file, as uploads do (one is the repeat of another), so one Judge goes
through the file; a sequence begins with an empty one. A vector gives the card's DTK and leaves the registry out: its
PSAMs count as registered.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from switch.keys import purse
from switch.keys.primitives import Algorithm, TacKey
from switch.messages.administration import read_upload
from switch.messages.hot_list import FULL, HotListBlock, applies, apply_blocks, pack_block, read_block
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes
from switch.purse.record import read_record
from switch.purse.verify import (
    ACCEPTED,
    ADJUSTED,
    PENDING_GREY,
    Candidate,
    Judge,
    Trace,
    adjudicate,
    tac_input,
)

_OWN_ISSUER = "99993350FFFFFFFF"
_UPLOAD_FIELDS = {11: "000001", 41: "33500001", 42: "0" * 15, 60: "00000001203", 64: bytes(8)}
_HELD = "hot list"


def _judge(received_at: str, own_issuer: str) -> Judge:
    return Judge(datetime.fromisoformat(received_at), {bytes.fromhex(own_issuer): True})


def _judged(judge: Judge, raw: bytes, dtk: bytes) -> Candidate:
    """One record through the checks, its TAC under the given card key."""
    candidate = Candidate(raw)
    record = candidate.record
    if record is not None and candidate.wants_tac:
        key = TacKey(dtk, Algorithm(record.algorithm))
        candidate.tac_good = purse.tac(key, tac_input(raw)) == record.tac
    judge.judge(candidate, "")
    return candidate


def classify_offline_record(vector: Vector) -> Outs:
    """One record, after those before it."""
    raw = vector.octets("record")
    received_at, own = vector.text("received_at"), vector.text("own_issuer_id")
    judge = vector.state.setdefault(("judge", received_at, own), _judge(received_at, own))
    candidate = _judged(judge, raw, vector.octets("DTK"))
    return {"tac_input": hexes(tac_input(raw)), "result": candidate.result}


def classify_sequence(vector: Vector) -> Outs:
    """Records presented to an empty store, and what becomes of the grey ones afterwards."""
    names, pieces = _sequence(vector)
    judge = _judge(vector.text("received_at"), str(vector.given.get("own_issuer_id", _OWN_ISSUER)))
    candidates = [_judged(judge, raw, dtk) for raw, dtk in pieces]
    verdicts = {
        name: adjudicate(
            _trace(grey), _traces(candidates, grey, ACCEPTED), _traces(candidates, grey, PENDING_GREY)
        ).result
        for name, grey in zip(names, candidates, strict=True)
        if grey.result == PENDING_GREY
    }
    accepted = [_trace(candidate).amount_fen for candidate in candidates if candidate.result == ACCEPTED]
    paid = [
        _trace(grey).amount_fen
        for name, grey in zip(names, candidates, strict=True)
        if verdicts.get(name) == ADJUSTED
    ]
    return {
        "results": [candidate.result for candidate in candidates],
        "after_adjudication": {name: verdict for name, verdict in verdicts.items() if verdict},
        "after_adjudication_first": verdicts.get(names[0], candidates[0].result),
        "accepted_count": len(accepted),
        "accepted_amount": sum(accepted),
        "payable_amount": sum(accepted) + sum(paid),
    }


def _sequence(vector: Vector) -> tuple[list[str], list[tuple[bytes, bytes]]]:
    """Names, and record with card key, of a sequence: listed in place, or by the ids of other vectors."""
    if "records" in vector.given:
        records, dtk = vector.given["records"], vector.octets("DTK")
        return [f"#{place}" for place in range(1, len(records) + 1)], [
            (bytes.fromhex(raw), dtk) for raw in records
        ]
    others = {entry.get("id"): entry.get("in", {}) for entry in vector.document.get("vectors", ())}
    names = list(vector.given.get("order", ()))
    if not names or any(name not in others for name in names):
        raise VectorError("order names vectors that the file does not have")
    return names, [
        (bytes.fromhex(others[name]["record"]), bytes.fromhex(others[name]["DTK"])) for name in names
    ]


def _trace(candidate: Candidate) -> Trace:
    record = candidate.record
    if record is None:
        raise VectorError("a grey or accepted record that cannot be read")
    return Trace(record.atc, record.amount_fen, record.balance_fen)


def _traces(candidates: Sequence[Candidate], grey: Candidate, result: str) -> list[Trace]:
    return [
        _trace(other)
        for other in candidates
        if other is not grey and other.asn == grey.asn and other.result == result
    ]


def pack_offline_upload(vector: Vector) -> Outs:
    """Field 62 of an upload, read back by the code that serves, and of an answer that accepts every record."""
    records = [bytes.fromhex(text) for text in vector.given.get("records", ())]
    count = bytes((int(str(len(records)), 16),))
    field62 = count + b"".join(records)
    upload: Any = read_upload({**_UPLOAD_FIELDS, 62: field62})
    if list(upload.records) != records:
        raise VectorError("field 62 does not read back")
    read = [read_record(raw) for raw in records]
    answers = b"".join(record.record_serial.to_bytes(4) + ACCEPTED.encode() for record in read)
    return {
        "field62": hexes(field62),
        "response_field62": hexes(count + answers),
        "count": len(read),
        "amount": sum(record.amount_fen for record in read),
    }


def blacklist_block(vector: Vector) -> Outs:
    """A block, and the list after it. An increment builds on the full list before it in the file."""
    raw = vector.octets("block")
    block = read_block(raw)
    if pack_block(block) != raw:
        raise VectorError("the block does not pack back")
    held = int(vector.given.get("held_version", 0))
    if not applies(block, held):
        return {**_block(block), "apply": False, "action": "request full list"}
    listed = apply_blocks(vector.state.get(_HELD, {}), [block])
    if block.mode == FULL:
        vector.state[_HELD] = listed
    return {**_block(block), "apply": True, "list_after": sorted(listed)}


def _block(block: HotListBlock) -> dict[str, object]:
    return {
        "more": block.more,
        "mode": block.mode,
        "base": block.base,
        "version": block.version,
        "block_no": block.block_no,
        "entries": [[entry.operation, entry.asn, entry.level] for entry in block.entries],
    }


CHECKERS: dict[tuple[str, str], Checker] = {
    ("offline", "classify_offline_record"): classify_offline_record,
    ("offline", "classify_sequence"): classify_sequence,
    ("offline", "pack_offline_upload"): pack_offline_upload,
    ("offline", "blacklist_block"): blacklist_block,
}
