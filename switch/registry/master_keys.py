"""TMK download 終端主密鑰下載: a terminal's master key, to the public key that its operator registered and to no other.

Nobody proves who he is when he asks: the message has no MAC, since a terminal without a master key can make none. What makes it safe
is where the answer goes. It is encrypted to the registered SM2 public key, so whoever asks, only the holder of the private half can
read it, and it is signed by the key centre, so the terminal knows whose key it takes. Nothing changes here, neither by the download
nor by its confirmation: a stranger who sends either ends no session.
"""

from collections import OrderedDict
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.decisions import APPROVED
from switch.keys.primitives import Algorithm
from switch.keys.records import KeyMissingError
from switch.keys.sm2 import Sm2Error
from switch.keys.vault import Vault
from switch.registry.sessions import KEYS_MISSING, SM4_MACS
from switch.registry.terminals import TerminalEntry
from switch.storage.sql import load

_SQL = load("switch.registry")

ENVELOPES_MAX: Final = 1_024
NOT_OFFERED: Final = "40"
SECURITY_FAILED: Final = "A7"


class MasterKeyAnswer(NamedTuple):
    """Field 39 and field 62 of the answer, and the rule for the log when it is a refusal."""

    answer: str
    field62: bytes = b""
    rule: str = ""


class MasterKeyDesk:
    """Hands out master keys. Envelopes are kept: making one takes milliseconds of this process, and anybody can ask again."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._envelopes: OrderedDict[tuple[str, Algorithm, bytes], bytes] = OrderedDict()

    async def download(
        self, connection: AsyncConnection[Any], entry: TerminalEntry, public_key: bytes
    ) -> MasterKeyAnswer:
        """811. 40 for a terminal without a registered key, A7 for another key than the registered one, 77 without a TMMK."""
        registered = await _registered(connection, entry)
        if registered is None:
            return MasterKeyAnswer(NOT_OFFERED, rule="no public key is registered for the terminal")
        if registered != public_key:
            return MasterKeyAnswer(SECURITY_FAILED, rule="not the public key registered for the terminal")
        algorithm = _algorithm(entry)
        name = (entry.terminal_id, algorithm, public_key)
        envelope = self._envelopes.get(name)
        if envelope is None:
            try:
                envelope = self._vault.master_key_envelope(entry.terminal_id, algorithm, public_key)
            except KeyMissingError:
                return _without_key()
            except Sm2Error:
                return MasterKeyAnswer(SECURITY_FAILED, rule="the registered public key is not on the curve")
            self._envelopes[name] = envelope
            if len(self._envelopes) > ENVELOPES_MAX:
                self._envelopes.popitem(last=False)
        else:
            self._envelopes.move_to_end(name)
        return MasterKeyAnswer(APPROVED, envelope)

    async def confirm(
        self, connection: AsyncConnection[Any], entry: TerminalEntry, kcv: bytes
    ) -> MasterKeyAnswer:
        """812. A7 when the terminal holds another key than it was sent."""
        if await _registered(connection, entry) is None:
            return MasterKeyAnswer(NOT_OFFERED, rule="no public key is registered for the terminal")
        try:
            expected = self._vault.terminal_kcv(entry.terminal_id, _algorithm(entry))
        except KeyMissingError:
            return _without_key()
        if kcv != expected:
            return MasterKeyAnswer(SECURITY_FAILED, rule="the terminal's master key has another check value")
        return MasterKeyAnswer(APPROVED)


def _algorithm(entry: TerminalEntry) -> Algorithm:
    return Algorithm.SM4 if entry.mac_algorithm in SM4_MACS else Algorithm.TDES


def _without_key() -> MasterKeyAnswer:
    return MasterKeyAnswer(KEYS_MISSING, rule="the vault holds no terminal master key of this algorithm")


async def _registered(connection: AsyncConnection[Any], entry: TerminalEntry) -> bytes | None:
    """Read each time: a key that was taken away must serve nobody a moment longer."""
    cursor = await connection.execute(
        _SQL["terminal_public_key"], {"terminal_no": entry.terminal_no}, prepare=True
    )
    row = await cursor.fetchone()
    return bytes.fromhex(row[0]) if row is not None and row[0] is not None else None
