"""SM2 as a terminal needs it (GB/T 32918): its own key pair, opening an envelope, checking a signature. Written out, slow, and its own.

Affine points, one inversion a step: some ten milliseconds an operation, which a terminal does once in its life. Not for secrets
that matter: time depends on the key.
"""

from secrets import randbelow
from typing import Final, NamedTuple

from cryptography.hazmat.primitives.hashes import SM3, Hash

P: Final = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A: Final = P - 3
B: Final = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N: Final = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
G: Final = (
    0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7,
    0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0,
)
USER_ID: Final = b"1234567812345678"
Point = tuple[int, int] | None  # None: the point at infinity


class Sm2Error(Exception):
    """What came is not what a holder of the right key would have sent."""


class Pair(NamedTuple):
    """A key pair of a terminal; shows only its public half."""

    private: int
    public: bytes  # 04 ‖ x ‖ y

    def __repr__(self) -> str:
        return f"Pair({self.public.hex().upper()})"


def draw() -> Pair:
    """A fresh pair."""
    private = 1 + randbelow(N - 2)
    return Pair(private, _packed(_times(private, G)))


def decrypt(private: int, cipher: bytes) -> bytes:
    """Plain text of C1 65 ‖ C3 32 ‖ C2, or Sm2Error."""
    if len(cipher) < 98:
        raise Sm2Error("the envelope is too short")
    x, y = _split(_packed(_times(private, _point(cipher[:65]))))
    plain = bytes(a ^ b for a, b in zip(cipher[97:], _derived(x + y, len(cipher) - 97), strict=True))
    if _sm3(x + plain + y) != cipher[65:97]:
        raise Sm2Error("the envelope does not open")
    return plain


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Return None when r ‖ s is a signature of message by the holder of public, else raise Sm2Error."""
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    point = _point(public)
    curve = b"".join(number.to_bytes(32) for number in (A, B, *G))
    user = _sm3((len(USER_ID) * 8).to_bytes(2) + USER_ID + curve + public[1:])
    digest = int.from_bytes(_sm3(user + message))
    t = (r + s) % N
    if len(signature) != 64 or not (0 < r < N and 0 < s < N) or t == 0:
        raise Sm2Error("the signature has the wrong form")
    end = _plus(_times(s, G), _times(t, point))
    if end is None or (digest + end[0]) % N != r:
        raise Sm2Error("the signature is wrong")


def _sm3(data: bytes) -> bytes:
    digest = Hash(SM3())
    digest.update(data)
    return digest.finalize()


def _derived(seed: bytes, size: int) -> bytes:
    blocks = (_sm3(seed + number.to_bytes(4)) for number in range(1, size // 32 + 2))
    return b"".join(blocks)[:size]


def _point(packed: bytes) -> Point:
    x, y = int.from_bytes(packed[1:33]), int.from_bytes(packed[33:])
    if len(packed) != 65 or packed[0] != 4 or (y * y - x * x * x - A * x - B) % P or not x < P > y:
        raise Sm2Error("not a point of the curve")
    return x, y


def _packed(point: Point) -> bytes:
    assert point is not None
    return b"\x04" + point[0].to_bytes(32) + point[1].to_bytes(32)


def _split(packed: bytes) -> tuple[bytes, bytes]:
    return packed[1:33], packed[33:]


def _plus(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    (x1, y1), (x2, y2) = one, other
    if x1 == x2:
        if (y1 + y2) % P == 0:
            return None
        slope = (3 * x1 * x1 + A) * pow(2 * y1, -1, P)
    else:
        slope = (y2 - y1) * pow(x2 - x1, -1, P)
    x = (slope * slope - x1 - x2) % P
    return x, (slope * (x1 - x) - y1) % P


def _times(scalar: int, point: Point) -> Point:
    result: Point = None
    while scalar:
        if scalar & 1:
            result = _plus(result, point)
        point = _plus(point, point)
        scalar >>= 1
    return result
