"""SM2: signatures, public-key encryption and key pairs on the recommended curve (GB/T 32918, GM/T 0003.5-2012).

Outward forms: public key 65 bytes (04 ‖ x ‖ y), private key 32, signature r ‖ s 64, ciphertext C1 ‖ C3 ‖ C2 with
C1 65 bytes. The library underneath (GmSSL) speaks DER; this file translates at the edge. The user id is
`1234567812345678` unless a vector says otherwise. Of a wrong signature the library writes a line of its own source to
standard error; it names no value.
"""

from typing import NamedTuple

import gmssl_pyx
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from switch.domain.errors import PeerError
from switch.keys.primitives import sm3

USER_ID = b"1234567812345678"
SIGNATURE_BYTES = 64
PUBLIC_KEY_BYTES = 65
PLAIN_BYTES_MAX = 255  # what the library takes in one piece; keys and digests are all that is ever encrypted

# GM/T 0003.5-2012, the recommended curve y^2 = x^3 + ax + b over GF(p), order n, base point G.
P = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF00000000FFFFFFFFFFFFFFFF
A = P - 3
B = 0x28E9FA9E9D9F5E344D5A9E4BCF6509A7F39789F515AB8F92DDBCBD414D940E93
N = 0xFFFFFFFEFFFFFFFFFFFFFFFFFFFFFFFF7203DF6B21C6052B53BBF40939D54123
GX = 0x32C4AE2C1F1981195F9904466A39C9948FE30BBFF2660BE1715A4589334C74C7
GY = 0xBC3736A2F4F6779C59BDCEE36B692153D0A9877CC62A474002DF32E52139F0A0
_CURVE = b"".join(number.to_bytes(32) for number in (A, B, GX, GY))


class Sm2Error(PeerError):
    """A signature, ciphertext or public key from outside is not valid. Says what kind, never the value."""


class KeyPair(NamedTuple):
    """An SM2 key pair; shows only its public half."""

    private: bytes  # 32
    public: bytes  # 65

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public.hex().upper()})"


def generate() -> KeyPair:
    """A fresh key pair."""
    public, private = gmssl_pyx.sm2_key_generate()
    return KeyPair(private, b"\x04" + public)


def key_pair(private: bytes) -> KeyPair:
    """The pair that belongs to a private key, 32 bytes, 1..n-2; ValueError otherwise.

    The public half is computed here, in time that depends on the key: for key ceremonies and known-answer checks, never
    on behalf of a peer. Signing and decrypting go through the library.
    """
    scalar = int.from_bytes(private)
    if len(private) != 32 or not 1 <= scalar <= N - 2:
        raise ValueError("SM2 private key must be 32 bytes, 1 to n-2")
    return KeyPair(private, base_point_times(scalar))


def base_point_times(scalar: int) -> bytes:
    """The point [scalar]G as 04 ‖ x ‖ y, by double-and-add in Jacobian coordinates (about a millisecond)."""
    x, y, z = 0, 1, 0  # the point at infinity
    for bit in f"{scalar % N:b}":
        x, y, z = _double(x, y, z)
        if bit == "1":
            x, y, z = _add_base(x, y, z)
    if z == 0:
        raise ValueError("scalar is a multiple of the order")
    inverse = pow(z, -1, P)
    square = inverse * inverse % P
    return b"\x04" + (x * square % P).to_bytes(32) + (y * square * inverse % P).to_bytes(32)


def _double(x: int, y: int, z: int) -> tuple[int, int, int]:
    """Jacobian doubling for a = -3."""
    if z == 0:
        return x, y, z
    delta, gamma = z * z % P, y * y % P
    beta = x * gamma % P
    alpha = 3 * (x - delta) * (x + delta) % P
    x3 = (alpha * alpha - 8 * beta) % P
    z3 = ((y + z) * (y + z) - gamma - delta) % P
    y3 = (alpha * (4 * beta - x3) - 8 * gamma * gamma) % P
    return x3, y3, z3


def _add_base(x: int, y: int, z: int) -> tuple[int, int, int]:
    """Add G (affine) to a Jacobian point."""
    if z == 0:
        return GX, GY, 1
    square = z * z % P
    h = (GX * square - x) % P
    r = (GY * square * z - y) % P
    if h == 0:
        return _double(x, y, z) if r == 0 else (0, 1, 0)
    h2 = h * h % P
    h3, v = h * h2 % P, x * h2 % P
    x3 = (r * r - h3 - 2 * v) % P
    return x3, (r * (v - x3) - y * h3) % P, z * h % P


def _raw_public(public: bytes) -> bytes:
    """64 bytes for the library, after checking form and curve membership."""
    if len(public) != PUBLIC_KEY_BYTES or public[0] != 4:
        raise Sm2Error("SM2 public key must be 65 bytes beginning with 04")
    try:
        raw: bytes = gmssl_pyx.normalize_sm2_public_key(public)
    except gmssl_pyx.InvalidValueError as error:
        raise Sm2Error("SM2 public key is not a point of the curve") from error
    return raw


def require_point(public: bytes) -> None:
    """Sm2Error unless this is a public key of the right form, on the curve."""
    _raw_public(public)


def user_digest(public: bytes, user_id: bytes = USER_ID) -> bytes:
    """Z, 32 bytes: SM3 over the length of the user id in bits, the id, the curve and the public key."""
    return sm3((len(user_id) * 8).to_bytes(2) + user_id + _CURVE + _raw_public(public))


def message_digest(public: bytes, message: bytes, user_id: bytes = USER_ID) -> bytes:
    """The number that is signed, e = SM3(Z ‖ message), 32 bytes."""
    return sm3(user_digest(public, user_id) + message)


def sign(pair: KeyPair, message: bytes, user_id: bytes = USER_ID) -> bytes:
    """Signature r ‖ s over a message of any length, 64 bytes (2 ms)."""
    der = gmssl_pyx.sm2_sign_sm3_digest(pair.private, message_digest(pair.public, message, user_id))
    r, s = decode_dss_signature(der)
    return r.to_bytes(32) + s.to_bytes(32)


def verify(public: bytes, message: bytes, signature: bytes, user_id: bytes = USER_ID) -> None:
    """Return None when the signature r ‖ s is right, else raise Sm2Error."""
    if len(signature) != SIGNATURE_BYTES:
        raise Sm2Error("SM2 signature must be 64 bytes")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    digest = message_digest(public, message, user_id)
    try:
        good = gmssl_pyx.sm2_verify_sm3_digest(_raw_public(public), digest, encode_dss_signature(r, s))
    except gmssl_pyx.GmsslInnerError as error:
        raise Sm2Error("SM2 signature is wrong") from error
    if not good:
        raise Sm2Error("SM2 signature is wrong")


def to_der(signature: bytes) -> bytes:
    """A signature r ‖ s as DER, the form that openssl takes."""
    return encode_dss_signature(int.from_bytes(signature[:32]), int.from_bytes(signature[32:]))


def encrypt(public: bytes, plain: bytes) -> bytes:
    """C1 ‖ C3 ‖ C2, 97 bytes longer than the plain text (1 to 255 bytes)."""
    if not 1 <= len(plain) <= PLAIN_BYTES_MAX:
        raise ValueError("SM2 encrypts 1 to 255 bytes")
    return _from_der(gmssl_pyx.sm2_encrypt(_raw_public(public), plain))


def decrypt(private: bytes, cipher: bytes) -> bytes:
    """Plain text of C1 ‖ C3 ‖ C2, or Sm2Error."""
    if not 98 <= len(cipher) <= 97 + PLAIN_BYTES_MAX or cipher[0] != 4:
        raise Sm2Error("SM2 ciphertext has the wrong form")
    _raw_public(cipher[:65])  # C1 must be on the curve
    try:
        plain: bytes = gmssl_pyx.sm2_decrypt(private, _to_der(cipher))
    except gmssl_pyx.GmsslInnerError as error:
        raise Sm2Error("SM2 ciphertext does not decrypt") from error
    return plain


# The DER form of a ciphertext is SEQUENCE { INTEGER x, INTEGER y, OCTET STRING C3, OCTET STRING C2 } (GM/T 0009).


def _der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def _der_integer(number: bytes) -> bytes:
    digits = number.lstrip(b"\0") or b"\0"
    return _der(0x02, b"\0" + digits if digits[0] & 0x80 else digits)


def _to_der(cipher: bytes) -> bytes:
    x, y, c3, c2 = cipher[1:33], cipher[33:65], cipher[65:97], cipher[97:]
    return _der(0x30, _der_integer(x) + _der_integer(y) + _der(0x04, c3) + _der(0x04, c2))


def _from_der(der: bytes) -> bytes:
    """From the library's own output: the form is trusted, an odd one is a bug."""
    body = _value(der, 0x30)[0]
    x, body = _value(body, 0x02)
    y, body = _value(body, 0x02)
    c3, body = _value(body, 0x04)
    c2, rest = _value(body, 0x04)
    assert not rest, "the library's ciphertext has four parts"
    return b"\x04" + x.lstrip(b"\0").rjust(32, b"\0") + y.lstrip(b"\0").rjust(32, b"\0") + c3 + c2


def _value(der: bytes, tag: int) -> tuple[bytes, bytes]:
    assert der[0] == tag, "the library's ciphertext is DER"
    size, start = der[1], 2
    if size & 0x80:
        start = 2 + (size & 0x7F)
        size = int.from_bytes(der[2:start])
    return der[start : start + size], der[start + size :]
