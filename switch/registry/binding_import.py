"""Bound bank cards of an import: which citizen card, which bank, under which agreement, and the number, which comes in clear and rests sealed.

A number is sealed in this process before its row is sent to the database. What the seal is bound to is in registry/bindings.py.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import psycopg

from switch.domain.identifiers import CardNumber
from switch.registry.bindings import BINDINGS_MAX, seal_context
from switch.registry.card_import import Tally
from switch.registry.import_files import FAULTS_MAX, Faults, Source
from switch.registry.import_format import BINDINGS, Record
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "binding_import.sql")

TOLD_ONE_BY_ONE: Final = 100  # cards whose bindings changed; beyond it, all bindings are read again


class SealNumbers(Protocol):
    """The vault, as far as an import needs it."""

    def seal_account(self, number: CardNumber, context: bytes) -> bytes:
        """Sealed for what it belongs to."""

    def account_tag(self, number: CardNumber) -> bytes:
        """16 bytes by which the number is known again."""


class BindingImport:
    """The bindings of one import, in its transaction. Call make_room, sealed for each row, plan, save, in this order."""

    def __init__(
        self,
        cursor: psycopg.ClientCursor[Any],
        sources: Sequence[Source],
        numbers: Callable[[], SealNumbers],
    ) -> None:
        """numbers: opens the vault; called with the first number."""
        self._cursor = cursor
        self._sources = sources
        self._open = numbers
        self._vault: SealNumbers | None = None
        self._touched: set[tuple[int, int]] = set()

    def make_room(self) -> None:
        """Let the staging table take sealed numbers."""
        self._run("make_room")

    def sealed(self, record: Record) -> list[bytes | None]:
        """A record's number, sealed, and its tag; None twice where it gives none."""
        number = record["bank_card"]
        if not isinstance(number, str):
            return [None, None]
        if self._vault is None:
            self._vault = self._open()
        card = CardNumber(number)
        context = seal_context(
            CardNumber(str(record["pan"])), str(record["institution_id"]), str(record["agreement_id"])
        )
        return [self._vault.seal_account(card, context), self._vault.account_tag(card)]

    def plan(self, faults: Faults) -> None:
        """Settle the cards of all bindings, or report why that cannot be. After the plan of the cards."""
        if faults.found:
            return
        self._run("plan_bindings")
        self._run("analyze_bindings")
        for query in (_SQL["check_bindings"], _SQL["check_together"].format(most=BINDINGS_MAX)):
            for file_no, place, field, rule in self._cursor.execute(query).fetchmany(FAULTS_MAX + 1):
                source = self._sources[file_no]
                faults.add(source.fault(source.place(BINDINGS, place), field, rule))

    def save(self, actor: str, reason: str) -> tuple[Tally, int]:
        """Write what is new or differs, each with its line in the log; and how many stayed ended."""
        who = {"actor": actor, "reason": reason}
        changed = self._run("step_down", who | {"down": True}).fetchall()
        changed += self._run("step_down", who | {"down": False}).fetchall()
        added = self._run("save_new", who).fetchall()
        self._touched = {*changed, *added}
        read, ended = self._run("binding_counts").fetchall()[0]
        return Tally(read, len(added), len(changed)), ended

    def announce(self) -> None:
        """Tell those who serve which cards' bindings are others now."""
        if len(self._touched) > TOLD_ONE_BY_ONE:
            self._run("announce_one", {"payload": "bindings"})
            return
        for shard, card_no in sorted(self._touched):
            self._run("announce_one", {"payload": f"binding:{shard}:{card_no}"})

    def _run(self, query: str, parameters: Mapping[str, object] | None = None) -> psycopg.ClientCursor[Any]:
        return self._cursor.execute(_SQL[query], parameters)
