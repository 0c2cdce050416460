"""Suite `host8583`: golden frames of the hosts' dialect, in both encodings."""

from typing import Any

from switch.keys.macs import MAC_ALGORITHMS, mac_engine, verify_field64
from switch.keys.primitives import MacKey
from switch.messages.dialect import decode, encode
from switch.messages.framing import FrameReader, frame
from switch.messages.host_1987 import DIALECTS
from switch.messages.kinds import Encoding
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes


def host_frame(vector: Vector) -> Outs:
    """Encode the fields, compute the MAC, and read the frame back to the same fields."""
    dialect = DIALECTS.get(vector.text("dialect"))
    mac_id = vector.given.get("mac_id")
    stated: dict[str, Any] = vector.given.get("fields", {})
    if dialect is None or mac_id not in MAC_ALGORITHMS:
        raise VectorError("unknown dialect or MAC id")
    fields: dict[int, str | bytes] = {}
    for name, value in stated.items():
        spec = dialect.fields.get(int(name))
        binary = spec is not None and spec.kind.encoding is Encoding.BINARY
        fields[int(name)] = bytes.fromhex(value) if binary else value
    mab = encode(dialect, vector.text("mti"), fields)
    engine = mac_engine(mac_id, MacKey(vector.octets("ZAK"), MAC_ALGORITHMS[mac_id]))
    framed = frame(mab + engine.field64(mab), dialect.frames)
    reader = FrameReader(dialect.frames)
    for piece in (framed[at : at + 1] for at in range(len(framed))):
        for body in reader.feed(piece):
            message = decode(dialect, body)
            verify_field64(engine, message.mab, message.mac)
            if (message.mti, message.fields) != (vector.text("mti"), fields | {dialect.mac: message.mac}):
                raise VectorError("the frame is not read back as it was made")
    return {"mab": hexes(mab), "mac": hexes(engine.field64(mab)), "frame": hexes(framed)}


CHECKERS: dict[tuple[str, str], Checker] = {("host8583", "frame"): host_frame}
