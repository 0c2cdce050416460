"""Cards of an import: who their holders are, which accounts and purses they open, and the money those open with.

Every booking of an opening figure is a posting from the custody bank (1001) in the holder's shard, dated the open business
day; it has no journal row, for no terminal asked for it. Set-based: half a million cards are a few statements.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from typing import Any, Final, NamedTuple, Protocol

import psycopg

from switch.domain.money import Fen
from switch.registry.import_files import FAULTS_MAX, Faults, Source
from switch.registry.import_format import BY_NAME, CARD_STATES
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "card_import.sql")

ENTRY_BLOCK: Final = (
    10_000  # serials in a block of sequence entry_no_block; the ledger's writers use the same
)
_CARDS: Final = BY_NAME["cards"]
_STATE_NAMES: Final = {number: name for name, number in CARD_STATES.items()}
_SUSPECTS: Final = "(SELECT p.* FROM planned_card p JOIN suspect_card USING (shard, pan))"


class Openings(NamedTuple):
    """Opening postings under one account code."""

    postings: int
    amount_fen: Fen


class EnterDay(Protocol):
    """Lets a booking into the open business day."""

    def __call__(self, cursor: psycopg.ClientCursor[Any], shards: Sequence[int]) -> date:
        """Take the gate of these shards, shared and in order, and return the open day; ConfigurationError without one."""


class ClearPins(Protocol):
    """Turns a clear PIN into a verifier: a vault marked for rehearsal."""

    def verifier_of_clear_pin(self, pin: str, account_id: int) -> bytes:
        """16 bytes; InputRefused unless the vault is for rehearsal."""


class Tally(NamedTuple):
    """Records of one kind in the files, and what became of them."""

    read: int
    created: int
    changed: int

    @property
    def unchanged(self) -> int:
        """As they were already."""
        return self.read - self.created - self.changed


class Kept(NamedTuple):
    """Known cards whose state stayed, for that of the files cannot follow it. Both states as the files spell them."""

    state: str
    in_files: str
    cards: int


class CardImport:
    """The card half of one import, in its transaction. Call plan, verify_pins, save, in this order."""

    def __init__(
        self,
        cursor: psycopg.ClientCursor[Any],
        sources: Sequence[Source],
        *,
        shards: int,
        following: Collection[tuple[int, int]],
        progress: Callable[[str, int], None],
    ) -> None:
        """following: pairs of a card's state and one that a file may put in its place; cards keep their state otherwise."""
        self._cursor = cursor
        self._progress = progress
        self._sources = sources
        self._shards = shards
        self._following = following

    def plan(self, faults: Faults) -> None:
        """Settle holder, shard and accounts of every staged card, or report why that cannot be."""
        self._run("match_cards")
        for check in ("check_holder", "check_openings"):
            for file_no, place, field, rule in self._run(check).fetchmany(FAULTS_MAX + 1):
                self._report(faults, file_no, place, field, rule)
        if faults.found:
            return
        self._run("plan_cards", {"shards": self._shards})
        self._run("plan_accounts")
        self._run("plan_purses")
        self._run("index_accounts")
        self._run("analyze_plans")

    def verify_pins(
        self, staged: Mapping[tuple[int, int], str], pins: Callable[[], ClearPins], faults: Faults
    ) -> None:
        """Turn the PINs of the files into verifiers, one per account of the card's holder.

        staged: PINs by file and row. They are never sent to the database.
        """
        self._run("make_pins")
        if not staged:
            return
        vault = pins()
        chosen: dict[int, str] = {}
        verifiers: list[tuple[int, int, bytes]] = []
        for file_no, place, shard, account_id in self._run("pin_accounts").fetchall():
            pin = staged[file_no, place]
            if account_id is None:
                self._report(faults, file_no, place, "pin", "the holder has no account that it could be for")
            elif account_id not in chosen:
                chosen[account_id] = pin
                verifiers.append((shard, account_id, vault.verifier_of_clear_pin(pin, account_id)))
            elif chosen[account_id] != pin:
                self._report(
                    faults, file_no, place, "pin", "differs from that of another card of the same holder"
                )
        if faults.found:
            return
        with self._cursor.copy(_SQL["copy_pins"]) as copy:
            copy.set_types(("int2", "int8", "bytea"))
            for verifier in verifiers:
                copy.write_row(verifier)
        self._run("analyze_pins")

    def save(self, actor: str, enter_day: EnterDay | None) -> tuple[Tally, dict[int, Openings], date | None]:
        """Write cards, accounts, purses and their opening postings; without `enter_day` (dry run) no postings.

        New rows come first, for nobody can wait for them. The gates come before any lock on a row that others know: a
        booking that holds a gate may be waiting for that row.
        """
        self._progress("writing cards", 0)
        for step in ("save_holders", "save_routes", "save_new_cards"):
            self._run(step)
        self._run("note_new_cards", {"actor": actor})
        self._progress("writing accounts", 0)
        for step in ("save_accounts", "save_purses"):
            self._run(step)
        before, after = zip(*self._following, strict=True)
        self._run("make_following", {"before": [*map(int, before)], "after": [*map(int, after)]})
        self._plan_changes("suspect_cards", "planned_card")
        self._run("plan_openings")
        shards = [shard for (shard,) in self._run("shards_touched").fetchall()]
        business_date = enter_day(self._cursor, shards) if enter_day is not None and shards else None
        self._run("lock_changing")
        self._run("lock_cards")
        # What was read before the locks may be undone by now: a loss reported in between would be lifted.
        self._plan_changes("plan_card_changes", _SUSPECTS)
        self._run("note_card_changes", {"actor": actor})
        self._run("save_card_changes")
        self._run("plan_pin_changes")
        self._run("save_pin_changes")
        self._run("note_pin_changes", {"actor": actor})
        openings = {
            code: Openings(count, Fen(total)) for code, count, total in self._run("opening_sums").fetchall()
        }
        if business_date is not None and openings:
            self._progress("booking openings", 0)
            self._run("post_openings", {"business_date": business_date, "size": ENTRY_BLOCK})
        self._run("wait_for_limits")
        self._run("count_new_accounts")
        created, changed, read = self._run("card_counts").fetchall()[0]
        return Tally(read, created, changed), openings, business_date if openings else None

    def kept(self) -> list[Kept]:
        """After save: where the files' states were not taken, at most one row for each two states."""
        rows = self._run("kept_states").fetchall()
        return [Kept(_STATE_NAMES[state], _STATE_NAMES[in_files], cards) for state, in_files, cards in rows]

    def _plan_changes(self, query: str, cards: str) -> None:
        self._cursor.execute(_SQL[query].format(card_changes=_SQL["card_changes"].format(cards=cards)))

    def _run(self, query: str, parameters: Mapping[str, object] | None = None) -> psycopg.ClientCursor[Any]:
        return self._cursor.execute(_SQL[query], parameters)

    def _report(self, faults: Faults, file_no: int, place: int, field: str, rule: str) -> None:
        source = self._sources[file_no]
        faults.add(source.fault(source.place(_CARDS, place), field, rule))
