"""Suite `sm`: SM2, SM3, SM4.

Signing and encrypting draw a fresh number k each time, as they must; a vector fixes it. A signature is a function of
(key, e, k): it is computed here from [k]G, and the library then verifies it. A ciphertext is a function of (key,
message, k): C1 must be [k]G and the library's decryption, which checks C3, must give the message.
"""

from switch.keys import sm2
from switch.keys.primitives import Algorithm, BlockCipher, sm3
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes


def sm2_sign(vector: Vector) -> Outs:
    """Z, e, and the signature that belongs to k."""
    pair = _pair(vector)
    message, user_id = vector.octets("message"), vector.octets("user_id")
    digest = sm2.message_digest(pair.public, message, user_id)
    secret, k = int.from_bytes(pair.private), vector.number("k")
    r = (int.from_bytes(digest) + int.from_bytes(sm2.base_point_times(k)[1:33])) % sm2.N
    s = pow(1 + secret, -1, sm2.N) * (k - r * secret) % sm2.N
    sm2.verify(pair.public, message, r.to_bytes(32) + s.to_bytes(32), user_id)
    sm2.verify(pair.public, message, sm2.sign(pair, message, user_id), user_id)
    return {
        "Z": hexes(sm2.user_digest(pair.public, user_id)),
        "e": hexes(digest),
        "r": f"{r:064X}",
        "s": f"{s:064X}",
    }


def _pair(vector: Vector) -> sm2.KeyPair:
    pair = sm2.key_pair(vector.octets("private_key"))
    if "public_key" in vector.given and vector.octets("public_key") != pair.public:
        raise VectorError("public_key does not belong to private_key")
    return pair


def sm2_verify(vector: Vector) -> Outs:
    """Whether a signature is right."""
    signature = vector.octets("r") + vector.octets("s")
    try:
        sm2.verify(vector.octets("public_key"), vector.octets("message"), signature, vector.octets("user_id"))
    except sm2.Sm2Error:
        return {"valid": False}
    return {"valid": True}


def sm2_encrypt(vector: Vector) -> Outs:
    """The ciphertext that belongs to k, shown to be the stated one by opening it."""
    pair, message = _pair(vector), vector.octets("message")
    stated = bytes.fromhex(str(vector.outs.get("cipher", "")))
    if stated[:65] != sm2.base_point_times(vector.number("k")):
        raise VectorError("cipher: C1 is not [k]G")
    if sm2.decrypt(pair.private, stated) != message:
        raise VectorError("cipher: decrypts to another message")
    if sm2.decrypt(pair.private, sm2.encrypt(pair.public, message)) != message:
        raise VectorError("own encryption does not decrypt")
    return {"cipher": hexes(stated)}


def sm3_digest(vector: Vector) -> Outs:
    """SM3."""
    return {"digest": hexes(sm3(vector.octets("message")))}


def sm4_ecb(vector: Vector) -> Outs:
    """SM4 in ECB, `iterations` times over itself, and back."""
    cipher = BlockCipher(vector.octets("key"), Algorithm.SM4)
    plain = block = vector.octets("plain")
    iterations = int(vector.given.get("iterations", 1))
    for _ in range(iterations):
        block = cipher.encrypt(block)
    if iterations == 1 and cipher.decrypt(block) != plain:
        raise VectorError("does not decrypt")
    return {"cipher": hexes(block)}


def published(vector: Vector) -> Outs:
    """Examples of the standards; what they state says which they are."""
    stated = vector.outs.keys()
    if "digest" in stated:
        return sm3_digest(vector)
    if "r" in stated:
        return sm2_sign(vector)
    return sm2_encrypt(vector) if "private_key" in vector.given else sm4_ecb(vector)


CHECKERS: dict[tuple[str, str], Checker] = {
    ("sm", "sm2_sign"): sm2_sign,
    ("sm", "sm2_verify"): sm2_verify,
    ("sm", "sm2_encrypt_C1C3C2"): sm2_encrypt,
    ("sm", "sm3"): sm3_digest,
    ("sm", "sm4_ecb"): sm4_ecb,
    ("sm", "published"): published,
}
