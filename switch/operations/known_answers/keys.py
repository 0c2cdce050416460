"""Suite `keys`: derivation, check values, working keys."""

from switch.domain.identifiers import diversifier_of
from switch.keys.derivation import derive_path, terminal_diversifier
from switch.keys.primitives import Algorithm, BlockCipher, WrappingKey, algorithm_named, kcv_of
from switch.keys.terminal_keys import unwrap_key, wrap_for_field62
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes

_WORKING_KEYS = ("PIK", "MAK", "TDK")


def _algorithm(vector: Vector) -> Algorithm:
    return algorithm_named(str(vector.body.get("alg")))


def diversify(vector: Vector) -> Outs:
    """One level; where the vector says what the diversifier was made of, that too."""
    algorithm, parent, diversifier = (
        _algorithm(vector),
        vector.octets("parent_key"),
        vector.octets("diversifier"),
    )
    if "asn" in vector.given and diversifier_of(vector.text("asn")) != diversifier:
        raise VectorError("diversifier is not the last 16 digits of the ASN")
    if "terminal_id" in vector.given and terminal_diversifier(vector.text("terminal_id")) != diversifier:
        raise VectorError("diversifier is not the terminal id in ASCII")
    child = derive_path(parent, algorithm, [diversifier])
    return {
        "child_key": hexes(child),
        "parent_kcv": hexes(kcv_of(parent, algorithm)),
        "child_kcv": hexes(kcv_of(child, algorithm)),
    }


def diversify_path(vector: Vector) -> Outs:
    """Several levels."""
    path = [bytes.fromhex(step) for step in vector.given.get("path", ())]
    algorithm = _algorithm(vector)
    key = derive_path(vector.octets("root_key"), algorithm, path)
    return {"key": hexes(key), "kcv": hexes(kcv_of(key, algorithm))}


def wrap_working_keys(vector: Vector) -> Outs:
    """Field 62 of a sign-on answer, short and long, and each part."""
    tmk = WrappingKey(vector.octets("tmk"), _algorithm(vector))
    keys = [vector.octets(name) for name in _WORKING_KEYS]
    field62 = wrap_for_field62(tmk, keys)
    parts = [field62[start : start + 20] for start in range(0, 60, 20)]
    if [unwrap_key(tmk, part[:16]) for part in parts] != keys:
        raise VectorError("field 62 does not unwrap")
    return {
        "wrapped": {name: hexes(part[:16]) for name, part in zip(_WORKING_KEYS, parts, strict=True)},
        "kcv": {name: hexes(part[16:]) for name, part in zip(_WORKING_KEYS, parts, strict=True)},
        "field62_40": hexes(wrap_for_field62(tmk, keys[:2])),
        "field62_60": hexes(field62),
    }


def kcv(vector: Vector) -> Outs:
    """Check value."""
    return {"kcv": hexes(kcv_of(vector.octets("key"), _algorithm(vector)))}


def unwrap(vector: Vector) -> Outs:
    """A working key from under its TMK; one public example states eight bytes of the check value."""
    algorithm = _algorithm(vector)
    clear = unwrap_key(WrappingKey(vector.octets("tmk"), algorithm), vector.octets("wrapped"))
    zeros = bytes(algorithm.block_bytes)
    return {"clear": hexes(clear), "check_value_8": hexes(BlockCipher(clear, algorithm).encrypt(zeros)[:8])}


CHECKERS: dict[tuple[str, str], Checker] = {
    ("keys", "diversify"): diversify,
    ("keys", "diversify_path"): diversify_path,
    ("keys", "wrap_working_keys"): wrap_working_keys,
    ("keys", "kcv"): kcv,
    ("keys", "unwrap"): unwrap,
}
