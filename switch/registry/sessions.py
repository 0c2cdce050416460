"""Sign-on 簽到, the first good MAC, sign-off 簽退: the moves of a terminal's one session, whatever process it comes by.

Anybody can send a sign-on: it proves nothing. So its keys only wait, and the session's old keys serve on; the first message
with a good MAC under waiting keys, which only the holder of the terminal master key can make, puts them in force.

    generation  which key set serves: terminal_session.generation
    waiting     key sets with a higher number; at most PENDING_MAX, the oldest give way
    signed off  generation names a number under which no keys are stored

Every move takes the lock on the terminal's session row, and announces itself on channel `registry`.
"""

from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.domain.errors import ConfigurationError
from switch.domain.transactions import SignOn
from switch.keys.primitives import Algorithm
from switch.keys.records import KeyMissingError
from switch.keys.vault import Vault
from switch.registry.terminals import MERCHANT_UNKNOWN, TERMINAL_UNKNOWN, TerminalEntry
from switch.storage.sql import load

_SQL = load("switch.registry")

PENDING_MAX: Final = 4
BATCH_NO_MAX: Final = 999_999
BATCH_CLOSED: Final = 2
ALGORITHM_NOT_ALLOWED: Final = "58"
KEYS_MISSING: Final = "77"
SM4_MACS: Final = frozenset({4, 5})


class SignOnResult(NamedTuple):
    """A session was prepared: field 60.2 and field 62 of the answer."""

    batch_no: int
    field62: bytes
    generation: int


class SignOnRefused(NamedTuple):
    """The terminal may not sign on (this way): field 39 of the answer, and the rule for the log."""

    answer: str
    rule: str


async def sign_on(
    connection: AsyncConnection[Any], vault: Vault, entry: TerminalEntry, request: SignOn
) -> SignOnResult | SignOnRefused:
    """Open a batch if the last one is closed, draw working keys and let them wait for their first good MAC.

    The terminal's MAC algorithm decides which keys it needs: 1 to 3 need 3DES (60.3 = 001, 003, 004), 4 and 5 need SM4
    (005, 006); the other kind is answered 58. Mode 001 gets double-length keys too. Without a TMMK of that
    algorithm the answer is 77.

    Raises ConfigurationError when no business day is open, and psycopg errors (then nothing was changed).
    """
    terminal = {"terminal_no": entry.terminal_no}
    async with connection.transaction():
        await connection.execute(_SQL["make_session"], terminal, prepare=True)
        cursor = await connection.execute(_SQL["lock_session"], terminal, prepare=True)
        row = await cursor.fetchone()
        assert row is not None, "the row was made or found just before"
        current, last, batch_no = row
        cursor = await connection.execute(
            _SQL["sign_on_facts"], terminal | {"batch_no": batch_no}, prepare=True
        )
        facts = await cursor.fetchone()
        assert facts is not None, "terminals are never deleted"
        terminal_active, merchant_active, mac_algorithm, batch_state, business_date = facts
        if not merchant_active:
            return SignOnRefused(MERCHANT_UNKNOWN, "merchant is closed")
        if not terminal_active:
            return SignOnRefused(TERMINAL_UNKNOWN, "terminal is closed")
        if request.sm4 != (mac_algorithm in SM4_MACS):
            return SignOnRefused(ALGORITHM_NOT_ALLOWED, "the terminal is registered for the other algorithm")
        if business_date is None:
            raise ConfigurationError("no business day is open: see `cardswitch doctor`")

        algorithm = Algorithm.SM4 if request.sm4 else Algorithm.TDES
        try:
            drawn = vault.new_working_keys(entry.terminal_id, algorithm, request.with_track_key)
        except KeyMissingError:
            return SignOnRefused(KEYS_MISSING, "the vault holds no terminal master key of this algorithm")
        if batch_state is None or batch_state == BATCH_CLOSED:
            batch_no = batch_no % BATCH_NO_MAX + 1
            await connection.execute(
                _SQL["open_batch"],
                terminal | {"batch_no": batch_no, "opened_on": business_date},
                prepare=True,
            )
        generation = last + 1
        async with connection.pipeline():
            key_set = terminal | {"generation": generation, "keys": drawn.stored}
            await connection.execute(_SQL["add_key_set"], key_set, prepare=True)
            bounds = terminal | {"current": current, "last": generation, "pending_max": PENDING_MAX}
            await connection.execute(_SQL["drop_surplus_key_sets"], bounds, prepare=True)
            session = terminal | {"generation": generation, "batch_no": batch_no}
            await connection.execute(_SQL["note_sign_on"], session, prepare=True)
            await connection.execute(_SQL["announce_terminal"], terminal, prepare=True)
    return SignOnResult(batch_no, drawn.field62, generation)


async def promote(connection: AsyncConnection[Any], terminal_no: int, generation: int) -> bool:
    """A MAC was good under the key set `generation`: it serves from now on and the older ones are gone.

    Idempotent, and safe from several processes at once: the highest generation wins. False means that this set no longer
    serves (a higher one does, it was pushed out, or the terminal signed off): the request under it gets A0.
    """
    key_set = {"terminal_no": terminal_no, "generation": generation}
    terminal = {"terminal_no": terminal_no}
    async with connection.transaction():
        cursor = await connection.execute(_SQL["lock_session"], terminal, prepare=True)
        row = await cursor.fetchone()
        if row is None or row[0] > generation:
            return False
        if row[0] == generation:
            return True
        # Its existence is asked for after the lock: a sign-on in between may have pushed it out.
        cursor = await connection.execute(_SQL["promote_key_set"], key_set, prepare=True)
        if cursor.rowcount == 0:
            return False
        async with connection.pipeline():
            await connection.execute(_SQL["drop_older_key_sets"], terminal, prepare=True)
            await connection.execute(_SQL["announce_terminal"], terminal, prepare=True)
    return True


async def sign_off(connection: AsyncConnection[Any], terminal_no: int, generation: int) -> bool:
    """End the session: all its keys, waiting ones too, are gone, and the next request is told to sign on (77).

    Only for a request whose MAC was good, under the key set `generation`. False, and nothing is ended, when a higher one serves by
    now: an old sign-off that was kept back, or played again, ends no later session. The batch stays open: it belongs to the terminal,
    not to its session. Repeating it changes nothing that a terminal could see.
    """
    terminal = {"terminal_no": terminal_no}
    async with connection.transaction():
        cursor = await connection.execute(_SQL["lock_session"], terminal, prepare=True)
        row = await cursor.fetchone()
        if row is None or row[0] > generation:
            return False
        async with connection.pipeline():
            await connection.execute(_SQL["end_session"], terminal, prepare=True)
            await connection.execute(_SQL["drop_older_key_sets"], terminal, prepare=True)
            await connection.execute(_SQL["announce_terminal"], terminal, prepare=True)
    return True
