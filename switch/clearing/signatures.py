"""Signatures of clearing files: `NAME.sig` beside a file, made once, kept, and the same whenever the file is written again.

Signed is the SM3 of the whole file, 32 bytes, with SM2 and the standard's user id; the form is DER, which openssl takes. Whoever has the
public half checks it with `cardswitch files lint --key` or with openssl (docs/delivery.md).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from psycopg import AsyncConnection

from switch.clearing.files import Written, on_disk, sync_folder, write_companion
from switch.keys.records import KeyMissingError, KeyState
from switch.keys.sm2 import to_der
from switch.keys.vault import Vault
from switch.storage.sql import load

SQL = load("switch.clearing", "signatures.sql")
KEY_TYPE = "FSK"

Connection = AsyncConnection[tuple[Any, ...]]


class Signature(NamedTuple):
    """One signature. der: over the digest of a file; public: 65 bytes."""

    key_name: str
    public: bytes
    der: bytes


class Signer(Protocol):
    """Whoever can sign."""

    def sign(self, sm3: bytes) -> Signature:
        """Sign the digest of a file, 32 bytes."""


class FileSigner:
    """The active file-signing key of a vault. KeyMissingError when no ceremony has made one."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        for record in vault.records():
            if record.key_type == KEY_TYPE and record.state is KeyState.ACTIVE:
                self._name = record.name
                break
        else:
            raise KeyMissingError(
                "clearing.sign_files is set and there is no active file-signing key (FSK): "
                "`cardswitch keys generate --type FSK --algorithm SM2 --owner local`"
            )
        self._public = vault.public_key(self._name)

    def sign(self, sm3: bytes) -> Signature:
        """Sign the digest of a file (2 ms)."""
        return Signature(self._name, self._public, to_der(self._vault.sign(self._name, sm3)))


async def stored_signatures(connection: Connection, names: Sequence[str]) -> dict[str, bytes]:
    """What `NAME.sig` of these files holds, of those that were signed."""
    cursor = await connection.execute(SQL["signatures"], {"names": list(names)})
    return {name: bytes(der) for name, der in await cursor.fetchall()}


async def sign_files(
    connection: Connection, folder: Path, files: Sequence[Written], signer: Signer | None
) -> None:
    """Write `NAME.sig` of each file that has a stored signature, and of those signed now. signer None: nothing is signed anew."""
    names = [written.name for written in files]
    stored = await stored_signatures(connection, names)
    if signer is not None:
        fresh = [written for written in files if written.name not in stored]
        made = [signer.sign(bytes.fromhex(written.sm3)) for written in fresh]
        # Stored before they are written: after a crash the same bytes go out.
        await connection.execute(
            SQL["add_signatures"],
            {
                "names": [written.name for written in fresh],
                "sm3s": [written.sm3 for written in fresh],
                "key_names": [signature.key_name for signature in made],
                "public_keys": [signature.public for signature in made],
                "signatures": [signature.der for signature in made],
            },
        )
        stored |= {written.name: signature.der for written, signature in zip(fresh, made, strict=True)}
    for name in names:
        if name in stored:
            write_companion(folder / f"{name}.sig", stored[name])
    if stored:
        with on_disk(folder):
            sync_folder(folder)
