"""Vaults with the keys of the vector files, for the tests of this room."""

import json
from pathlib import Path
from typing import Any

from switch.keys.ceremony import Custodian
from switch.keys.opening import create_vault
from switch.keys.primitives import Algorithm
from switch.keys.records import KeyLevel, KeySpec, KeyState, KeyStore
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore

VECTORS = Path(__file__).parents[2] / "vectors"
UNLOCK = UnlockSecret(b"a key file for the tests, 32 bytes", "hkdf")  # a passphrase costs 0.1 s each time
OPERATORS = ("li wei", "wang fang")
ISSUER = bytes.fromhex("99993350FFFFFFFF")


def vectors(suite: str) -> list[dict[str, Any]]:
    """All vectors of a suite, without the published ones."""
    listed: list[dict[str, Any]] = json.loads((VECTORS / f"{suite}.json").read_text())["vectors"]
    return listed


def root_spec(kind: str, algorithm: Algorithm, version: int = 1) -> KeySpec:
    """A root key's spec."""
    return KeySpec(kind, algorithm.label, version, "national", KeyLevel.ROOT, 1)


def vector_roots() -> dict[tuple[str, Algorithm], bytes]:
    """Root keys of the vector file: DPK, DLK, DTK, DAMK and TMMK in both algorithms."""
    roots = {}
    for vector in vectors("keys"):
        name = vector["id"]
        if name.endswith("-CITY") or name.startswith("KEY-TMK-"):
            algorithm = Algorithm.SM4 if vector["alg"] == "SM4" else Algorithm.TDES
            kind = "TMMK" if name.startswith("KEY-TMK-") else name.split("-")[2]
            roots[kind, algorithm] = bytes.fromhex(vector["in"]["parent_key"])
    return roots


def split(clear: bytes) -> list[bytes]:
    """Two components of a key."""
    first = bytes(range(16))
    return [first, bytes(a ^ b for a, b in zip(first, clear, strict=True))]


def vector_vault(folder: Path, *, rehearsal: bool = True) -> tuple[SoftwareVault, JsonKeyStore]:
    """A vault that holds the vector file's roots, entered as components."""
    store = JsonKeyStore(folder / "keys.json")
    vault = create_vault(store, UNLOCK, rehearsal=rehearsal)
    custodian = Custodian(vault, store)
    for (kind, algorithm), clear in vector_roots().items():
        custodian.enter(root_spec(kind, algorithm), split(clear), OPERATORS)
    return vault, store


def set_state(vault: SoftwareVault, store: KeyStore, name: str, state: KeyState) -> None:
    """Move a key to a state."""
    Custodian(vault, store).set_state(name, state, OPERATORS)
