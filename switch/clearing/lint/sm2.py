"""SM2 verification (GB/T 32918.2) in plain integers, so that a partner needs no library for it. Public values only: nothing here is secret.

The signed message is the SM3 digest of the file, 32 bytes; the user id is the standard's own, `1234567812345678`.
"""

import base64
import binascii
from hashlib import new as new_digest

USER_ID = b"1234567812345678"
P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
G = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
_SPKI = bytes.fromhex(
    "3059301306072a8648ce3d020106082a811ccf5501822d034200"
)  # SubjectPublicKeyInfo before the point

Point = tuple[int, int] | None  # None: the point at infinity


def read_public_key(text: bytes) -> bytes:
    """A public key, 65 bytes, from PEM, DER or hex. ValueError when it is none of SM2."""
    if b"-----BEGIN" in text:
        body = b"".join(line for line in text.splitlines() if not line.startswith(b"-----"))
        try:
            text = base64.b64decode(body, validate=True)
        except binascii.Error as error:
            raise ValueError("the key's PEM cannot be read") from error
    elif len(text.split()) == 1 and len(text.strip()) == 130:
        text = bytes.fromhex(text.decode("ascii", "replace").strip())
    text = text.removeprefix(_SPKI)
    if len(text) != 65 or text[0] != 4 or not _on_curve(text):
        raise ValueError("not a public key of SM2: PEM (PUBLIC KEY), or 04, x and y as 130 hex digits")
    return text


def _on_curve(public: bytes) -> bool:
    x, y = int.from_bytes(public[1:33]), int.from_bytes(public[33:])
    return x < P and y < P and (y * y - x * x * x - A * x - B) % P == 0


def _add(one: Point, other: Point) -> Point:
    if one is None:
        return other
    if other is None:
        return one
    (x1, y1), (x2, y2) = one, other
    if x1 == x2:
        if (y1 + y2) % P == 0:
            return None
        slope = (3 * x1 * x1 + A) * pow(2 * y1, -1, P) % P
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P) % P
    x3 = (slope * slope - x1 - x2) % P
    return x3, (slope * (x1 - x3) - y1) % P


def _times(scalar: int, point: Point) -> Point:
    product: Point = None
    for bit in f"{scalar:b}":
        product = _add(product, product)
        if bit == "1":
            product = _add(product, point)
    return product


def _read_integer(der: bytes, at: int) -> tuple[int, int]:
    """A DER INTEGER of at most 33 bytes, and where the next begins."""
    size = der[at + 1]
    if der[at] != 0x02 or not 1 <= size <= 33 or len(der) < at + 2 + size:
        raise ValueError("no integer")
    return int.from_bytes(der[at + 2 : at + 2 + size]), at + 2 + size


def _read_signature(der: bytes) -> tuple[int, int]:
    try:
        if der[0] != 0x30 or der[1] != len(der) - 2:
            raise ValueError("no sequence")
        r, at = _read_integer(der, 2)
        s, at = _read_integer(der, at)
    except IndexError as error:
        raise ValueError("too short") from error
    if at != len(der):
        raise ValueError("too long")
    return r, s


def _sm3(data: bytes) -> bytes:
    return new_digest("sm3", data).digest()


def verify(public: bytes, message: bytes, der: bytes) -> bool:
    """Whether a DER signature over a message is right. public: 65 bytes, from `read_public_key`."""
    try:
        r, s = _read_signature(der)
    except ValueError:
        return False
    if not (1 <= r < N and 1 <= s < N) or (r + s) % N == 0:
        return False
    head = (len(USER_ID) * 8).to_bytes(2) + USER_ID
    curve = b"".join(number.to_bytes(32) for number in (A, B, *G))
    e = int.from_bytes(_sm3(_sm3(head + curve + public[1:]) + message))
    key = int.from_bytes(public[1:33]), int.from_bytes(public[33:])
    point = _add(_times(s, G), _times((r + s) % N, key))
    return point is not None and (e + point[0]) % N == r
