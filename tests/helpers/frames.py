"""Golden frames of tests/vectors, and messages made from them by changing fields."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from switch.messages.codec import decode, encode
from switch.messages.message import Message

VECTORS = Path(__file__).parent.parent / "vectors"


@cache
def golden() -> dict[str, dict[str, Any]]:
    """The golden frames by id."""
    suite = json.loads((VECTORS / "iso8583.json").read_text())
    return {vector["id"]: vector for vector in suite["vectors"]}


@cache
def negative() -> dict[str, dict[str, Any]]:
    """The malformed frames by id."""
    suite = json.loads((VECTORS / "iso8583-negative.json").read_text())
    return {vector["id"]: vector for vector in suite["vectors"]}


def frame_of(vector_id: str) -> bytes:
    """A golden frame, LEN included."""
    return bytes.fromhex(golden()[vector_id]["frame"])


def message_of(vector_id: str) -> Message:
    """A golden frame, decoded."""
    return decode(frame_of(vector_id)[2:])


def changed(vector_id: str, changes: dict[int, Any], mti: str = "") -> Message:
    """A golden frame with other fields, through the codec again; None takes a field out."""
    message = message_of(vector_id)
    fields = {number: value for number, value in (message.fields | changes).items() if value is not None}
    return decode(encode(Message(message.tpdu, message.header, mti or message.mti, fields)))
