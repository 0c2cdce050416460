"""Suites `iso8583` and `iso8583-negative`: golden frames, and frames that must be refused.

A golden vector states everything at its top level: the frame and what it consists of, and beside it keys and what they
open. Keys are inputs; they are handed back as computed once they have served.
"""

from typing import Any

from switch.domain.errors import FormatError, FramingError, MacMismatch
from switch.domain.identifiers import CardNumber
from switch.domain.transactions import Load, LoadConfirm, PinEntry, Refused
from switch.keys import purse
from switch.keys.macs import MAC_ALGORITHMS, mac_engine, verify_field64
from switch.keys.pin_blocks import FORMAT_ALGORITHM, decrypt_pin
from switch.keys.primitives import (
    Algorithm,
    LoadKey,
    MacKey,
    PinKey,
    TacKey,
    WrappingKey,
    algorithm_named,
    block_cipher,
    kcv_of,
)
from switch.keys.terminal_keys import unwrap_key
from switch.messages.codec import UnsupportedMti, decode, encode
from switch.messages.framing import FrameReader, frame
from switch.messages.mapping import read_request
from switch.messages.message import Message
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes

_MAC_IDS = {"CUP-ECB-3DES": 1, "X9.9-DES-CBC": 2, "X9.19-3DES": 3, "CUP-ECB-SM4": 4, "SM4-CBC-MAC": 5}
_REQUEST, _RESPONSE = "request", "response"


def golden(vector: Vector) -> Outs:
    """Decode, encode again, check the MAC, and open whatever the vector gives a key for."""
    body = vector.body
    raw = bytes.fromhex(str(body.get("frame", "")))
    reader = FrameReader()
    bodies = reader.feed(raw)
    if len(bodies) != 1 or reader.pending_bytes:
        raise VectorError("frame is not exactly one frame")
    message = decode(bodies[0])
    fields = {str(number): _shown(value) for number, value in message.fields.items() if number != 64}
    has_mac = 64 in message.fields
    computed: dict[str, object] = {
        "mti": message.mti,
        "tpdu": hexes(message.tpdu),
        "header": hexes(message.header),
        "terminal": message.fields[41],
        "fields": fields,
        "mab": hexes(message.mab) if has_mac else None,
        "frame": hexes(frame(encode(message))),
    }
    good = _check_mac(vector, message, computed)
    _open_keys(vector, message, computed)
    if body.get("direction") == _REQUEST:
        _check_request(vector, message, computed, mac_good=good)
    elif body.get("direction") != _RESPONSE:
        raise VectorError("direction is neither request nor response")
    return computed


def _shown(value: Any) -> Any:
    return hexes(value) if isinstance(value, bytes) else value


def _check_mac(vector: Vector, message: Message, computed: dict[str, object]) -> bool:
    """Whether field 64 is right, True also without one; a wrong one that the vector does not expect is MacMismatch."""
    body = vector.body
    name, material = body.get("mac_algorithm"), body.get("mak")
    computed["mac_algorithm"], computed["mak"] = name, material
    if 64 not in message.fields:
        computed["field64"] = None
        if name is not None or material is not None:
            raise VectorError("a MAC is named and the frame has none")
        return True
    mac_id = _MAC_IDS.get(str(name))
    if mac_id is None:
        raise VectorError("unknown mac_algorithm")
    engine = mac_engine(mac_id, MacKey(bytes.fromhex(str(material)), MAC_ALGORITHMS[mac_id]))
    computed["field64"] = hexes(message.field64)
    try:
        verify_field64(engine, message.mab, message.field64)
    except MacMismatch:
        if _expected(vector).get("response_code") != "A0":
            raise
        return False
    return True


def _expected(vector: Vector) -> dict[str, Any]:
    expected = vector.body.get("expected", {})
    if not isinstance(expected, dict):
        raise VectorError("expected is not an object")
    return expected


def _open_keys(vector: Vector, message: Message, computed: dict[str, object]) -> None:
    """Working keys of a sign-on answer."""
    body = vector.body
    if "tmk" not in body:
        return
    terminals = vector.document.get("terminals", {})
    algorithm = algorithm_named(str(terminals.get(message.fields[41], {}).get("algorithm")))
    tmk = WrappingKey(bytes.fromhex(body["tmk"]), algorithm)
    found, field62 = {}, message.fields[62]
    for name, start in zip(("PIK", "MAK", "TDK"), range(0, len(field62), 20), strict=False):
        clear = unwrap_key(tmk, field62[start : start + 16])
        if kcv_of(clear, algorithm) != field62[start + 16 : start + 20]:
            raise VectorError(f"check value of {name} is wrong")
        found[name] = hexes(clear)
    computed["tmk"], computed["expected_keys"] = body["tmk"], found


def _check_request(vector: Vector, message: Message, computed: dict[str, object], *, mac_good: bool) -> None:
    """Read the typed request; check PIN block, MAC1 and TAC where keys are given, and the answer where it follows."""
    body, answer = vector.body, ""
    if not mac_good:
        answer = "A0"
    else:
        request = read_request(message)
        if isinstance(request, Refused):
            answer = request.answer
        if "pik" in body:
            pin = getattr(request, "pin", None)
            if pin is None:
                raise VectorError("a PIK is given and the request has no PIN")
            _open_pin(body["pik"], pin, CardNumber(message.fields[2]), computed)
        if "DLK" in body:
            answer = _check_load(vector, request, computed)
        if isinstance(request, LoadConfirm):
            _check_confirm(vector, request)
    if "expected" in body:
        expected = _expected(vector)
        made: dict[str, object] = {"response_code": answer}
        if "accept" in expected:
            made["accept"] = not answer
        computed["expected"] = made
    elif answer:
        raise VectorError(f"the request would be answered {answer}, and nothing says so")


def _open_pin(material: str, pin: PinEntry, card: CardNumber, computed: dict[str, object]) -> None:
    key = PinKey(bytes.fromhex(material), FORMAT_ALGORITHM[pin.format])
    computed["pik"] = material
    computed["clear_pin"] = decrypt_pin(key, pin.block, pin.format, card)
    computed["pin_block"] = hexes(block_cipher(key).decrypt(pin.block))


def _check_load(vector: Vector, request: object, computed: dict[str, object]) -> str:
    """MAC1 of a load under the card's DLK: the answer A7 when it is wrong. A DTK is kept for the confirm."""
    if not isinstance(request, Load) or request.purse is None:
        raise VectorError("a DLK is given and the request is no purse load")
    body, data = vector.body, request.purse
    algorithm = Algorithm(data.algorithm_id)
    session = purse.load_session_key(
        LoadKey(bytes.fromhex(body["DLK"]), algorithm), data.card_random, data.online_atc
    )
    terms = purse.LoadTerms(
        data.card_random, data.online_atc, data.balance_fen, request.amount_fen, data.terminal_no
    )
    computed["DLK"] = body["DLK"]
    if "DTK" in body:
        key = TacKey(bytes.fromhex(body["DTK"]), algorithm)
        computed["DTK"] = hexes(key.reveal())
        vector.state[data.asn, data.online_atc] = (key, terms)
    return "" if purse.session_mac(session, purse.load_mac1_input(terms)) == data.mac1 else "A7"


def _check_confirm(vector: Vector, request: LoadConfirm) -> None:
    """The TAC of a confirm whose load stood before it in the file with a DTK."""
    data = request.purse
    loaded = None if data is None else vector.state.get((data.asn, data.online_atc))
    if data is None or data.tac is None or loaded is None:
        return
    key, terms = loaded
    if purse.tac(key, purse.load_tac_input(terms, data.host_date, data.host_time)) != data.tac:
        raise VectorError("TAC of the confirm is wrong")


def decode_frame(vector: Vector) -> Outs:
    """How a malformed frame is refused: fed whole and byte by byte it must be the same."""
    raw = vector.octets("bytes")
    whole, dripped = _refusal(raw, len(raw)), _refusal(raw, 1)
    if whole != dripped:
        raise VectorError("fed byte by byte it is refused in another way")
    return {"error": whole}


def _refusal(raw: bytes, step: int) -> str:
    reader = FrameReader()
    bodies: list[bytes] = []
    try:
        for start in range(0, len(raw), max(step, 1)):
            bodies += reader.feed(raw[start : start + step])
            if reader.failure is not None:
                raise reader.failure
        for found in bodies:
            decode(found)
    except UnsupportedMti:
        return "unsupported_mti"
    except (FormatError, FramingError):
        return "format"
    if reader.pending_bytes and not bodies:
        return "incomplete"
    return "format" if reader.pending_bytes else "none"


CHECKERS: dict[tuple[str, str], Checker] = {
    ("iso8583", "vector"): golden,
    ("iso8583-negative", "decode_frame"): decode_frame,
}
