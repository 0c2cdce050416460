"""Loads and purses between the tables and the running state of a batch."""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import structlog

from switch.domain.transactions import CardRequest, Kind, Load, LoadConfirm, Reversal
from switch.ledger.load_states import ALARMS, OPEN, SOURCE_NAME, LoadMove, LoadState, PurseLoad
from switch.ledger.rules import Movement
from switch.storage.arrays import byteas, dates, instants, int2s, int4s, int8s, texts
from switch.storage.pipeline import Pipeline

if TYPE_CHECKING:
    from switch.ledger.batch import Batch

log = structlog.get_logger(__name__)

OnLoad = Callable[[str, str, str], None]  # state, source, reason or answer
STATEMENTS = (
    "lock_purses",
    "read_loads",
    "read_purse_maxima",
    "write_purses",
    "write_loads",
    "write_load_moves",
)


def concerned(request: CardRequest) -> bool:
    """Whether a request can only be decided by the purse of its card."""
    if isinstance(request, Load):
        return request.purse is not None
    # These name a load, and whether that was one of a purse is not theirs to say.
    return isinstance(request, LoadConfirm) or (isinstance(request, Reversal) and request.of == Kind.LOAD)


async def read_loads(
    link: Pipeline, shard: int, batch: "Batch", terminals: Collection[int], entries: Collection[int] = ()
) -> None:
    """Read what loads of the locked purses depend on, after the locks and the look-up of originals. entries: loads to read besides."""
    purses = list(batch.purses.values())
    named = [entry.entry_no for entry in batch.by_number.values() if entry.kind == Kind.LOAD]
    link.queue(
        "read_loads",
        {
            "shard": shard,
            "cards": int8s([purse.card_no for purse in purses]),
            "atcs": int4s([purse.online_atc for purse in purses]),
            "entries": int8s([*named, *entries]),
        },
    )
    link.queue("read_purse_maxima", {"terminals": int4s(list(terminals))})
    loads, maxima = await link.round_trip()
    for row in loads:
        batch.facts.loads[row[0]] = PurseLoad(*row)
    batch.purse_max_fen = dict(maxima)


def tell(batch: "Batch", on_load: OnLoad) -> None:
    """Count what a committed batch did with loads, and log what people must look into."""
    for item, entry, _ in batch.written:
        if isinstance(item.request, Load) and item.request.purse is not None:
            on_load("requested", item.request.source.name.lower(), entry.answer)
    tell_moves(batch.facts.load_moves, on_load)


def tell_moves(moves: Iterable[LoadMove], on_load: OnLoad) -> None:
    """The same for moves alone."""
    for moved in moves:
        state = LoadState(moved.to_state).name.lower()
        on_load(state, SOURCE_NAME[moved.load.source], str(moved.reason))
        if moved.reason in ALARMS:
            log.warning(
                "a load contradicts itself",
                load=moved.load.entry_no,
                card_no=moved.load.card_no,
                reason=str(moved.reason),
                state=state,
                amount_fen=moved.load.amount_fen,
            )


def movements(moves: Iterable[LoadMove]) -> list[tuple[int, int, Movement]]:
    """Entry, line and money of the moves that have any."""
    return [
        (moved.entry_no, moved.line, Movement(moved.debit, moved.credit, moved.load.amount_fen))
        for moved in moves
        if moved.moves_money
    ]


def queue_writes(link: Pipeline, shard: int, batch: "Batch") -> None:
    """Queue the statements that write purses, loads and moves of a batch."""
    purses = [purse for purse in batch.purses.values() if purse.changed]
    if purses:
        link.queue(
            "write_purses",
            {
                "shard": shard,
                "cards": int8s([purse.card_no for purse in purses]),
                "loaded": int8s([purse.loaded_fen for purse in purses]),
                "atcs": int4s([purse.online_atc for purse in purses]),
            },
        )
    loads = [load for load in batch.facts.loads.values() if load.changed]
    if loads:
        loads.sort(key=lambda load: (load.state in _COUNTED, load.entry_no))
        _queue_loads(link, shard, loads)
    moves = batch.facts.load_moves
    link.queue(
        "write_load_moves",
        {
            "shard": shard,
            "business_date": batch.today,
            "at": batch.now,
            "entries": int8s([moved.entry_no for moved in moves]),
            "lines": int2s([moved.line for moved in moves]),
            "loads": int8s([moved.load.entry_no for moved in moves]),
            "from_states": int2s([moved.from_state for moved in moves]),
            "to_states": int2s([moved.to_state for moved in moves]),
            "reasons": texts([str(moved.reason) for moved in moves]),
            "notes": texts([moved.note for moved in moves]),
        },
    )


_COUNTED = frozenset(map(int, (LoadState.AUTHORISED, LoadState.CONFIRMED, LoadState.LOADED)))
assert {LoadState.SUSPENSE} == OPEN - _COUNTED


def _queue_loads(link: Pipeline, shard: int, loads: Sequence[PurseLoad]) -> None:
    link.queue(
        "write_loads",
        {
            "shard": shard,
            "entries": int8s([load.entry_no for load in loads]),
            "dates": dates([load.business_date for load in loads]),
            "cards": int8s([load.card_no for load in loads]),
            "atcs": int4s([load.online_atc for load in loads]),
            "psams": texts([load.psam for load in loads]),
            "issuers": byteas([load.issuer_id for load in loads]),
            "versions": int2s([load.key_version for load in loads]),
            "algorithms": int2s([load.algorithm_id for load in loads]),
            "indexes": int2s([load.key_index for load in loads]),
            "randoms": byteas([load.card_random for load in loads]),
            "amounts": int8s([load.amount_fen for load in loads]),
            "balances": int8s([load.balance_before_fen for load in loads]),
            "instants": instants([load.authorised_at for load in loads]),
            "sources": int2s([load.source for load in loads]),
            "debit_codes": int2s([load.debit_code for load in loads]),
            "debit_owners": int8s([load.debit_owner for load in loads]),
            "states": int2s([load.state for load in loads]),
            "reasons": texts([str(load.reason) for load in loads]),
            "held": int2s([load.held for load in loads]),
            "proven": int2s([load.proven for load in loads]),
            "claimed": int2s([load.claimed for load in loads]),
        },
    )
