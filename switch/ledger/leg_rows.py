"""Legs between the tables and the running state of a batch: what is locked and read, and how it is written."""

from collections.abc import Collection, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from switch.domain.hosts import HostService, HostStep, host_key
from switch.ledger.items import Item
from switch.ledger.leg_state import Leg, StandIn, Tell
from switch.ledger.legs import trace_of
from switch.ledger.rules import Entry
from switch.ledger.serials import Serials
from switch.storage.arrays import instants, int2s, int4s, int8s, texts
from switch.storage.pipeline import Parameter, Pipeline
from switch.storage.sql import load

if TYPE_CHECKING:
    from switch.ledger.batch import Batch

SQL: Final = dict(load("switch.ledger", "legs.sql"))
STATEMENTS: Final = (
    "lock_terminals",
    "add_stand_ins",
    "lock_stand_ins",
    "lock_bindings",
    "read_bound",
    "read_legs",
    "add_legs",
    "end_legs",
    "write_stand_ins",
    "write_outbox",
)
TERMINAL_LOCK: Final = (
    0x4C454753  # "LEGS": the first half of the advisory lock, the terminal's number is the second
)
_TWO_31: Final = 1 << 31
BINDING_LOCK: Final = 0x424E4453  # "BNDS": likewise, with the number of the binding
Row = Sequence[Any]


def queue_locks(link: Pipeline, shard: int, terminals: Collection[int], hosts: Collection[str]) -> None:
    """Queue what orders requests that no account of ours orders; behind the accounts and before anything is read."""
    link.queue("lock_terminals", {"space": TERMINAL_LOCK, "terminals": int4s(list(terminals))})
    if hosts:
        link.queue("add_stand_ins", {"shard": shard, "hosts": texts(list(hosts))})
        link.queue("lock_stand_ins", {"shard": shard, "hosts": texts(list(hosts))})


def locked(results: list[Any], hosts: Collection[str]) -> tuple[list[Any], dict[str, StandIn]]:
    """Take the results of queue_locks from the front; the rest, and what was locked."""
    if not hosts:
        return results[1:], {}
    _, _, rows, *rest = results
    return rest, {row[0]: StandIn(*row) for row in rows}


def queue_bound(link: Pipeline, shard: int, bindings: Collection[int], oldest: date) -> None:
    """Queue the lock on bound cards with a day limit, behind the terminals, and then what they have paid today.

    oldest: a date that today is not before.
    """
    numbers = list(bindings)
    link.queue("lock_bindings", {"space": BINDING_LOCK, "bindings": int4s([n % _TWO_31 for n in numbers])})
    link.queue("read_bound", {"shard": shard, "bindings": int8s(numbers), "oldest": oldest})


def queue_read(
    link: Pipeline, shard: int, intents: Sequence[tuple[int, int, int]], ended_by: Sequence[int]
) -> None:
    """Queue the legs of these intents and of these transactions."""
    link.queue(
        "read_legs",
        {
            "shard": shard,
            "terminals": int4s([key[0] for key in intents]),
            "batches": int4s([key[1] for key in intents]),
            "stans": int4s([key[2] for key in intents]),
            "ended_by": int8s(list(ended_by)),
        },
    )


def take_in(batch: "Batch", rows: Sequence[Row]) -> None:
    """Put what was read where decisions look for it."""
    for row in rows:
        leg = Leg(*row[3:])
        if leg.ended_by is None:
            batch.legs_asked[row[0], row[1], row[2]] = leg
        else:
            batch.legs[leg.ended_by] = leg


def queue_writes(link: Pipeline, shard: int, batch: "Batch", serials: Serials) -> None:
    """Queue new legs, ended legs, stand-in sums and the outbox."""
    made = [(item, entry, ruling.leg) for item, entry, ruling in batch.written if ruling.leg is not None]
    if made:
        link.queue("add_legs", _new_columns(shard, made))
    new = {leg.leg_no for _, _, leg in made}
    ended = {
        leg.leg_no: leg
        for leg in (*batch.legs.values(), *batch.legs_asked.values())
        if leg.changed and leg.leg_no not in new
    }
    if ended:
        link.queue("end_legs", _end_columns(shard, list(ended.values())))
    standing = [one for one in batch.stand_ins.values() if one.changed]
    if standing:
        link.queue(
            "write_stand_ins",
            {
                "shard": shard,
                "hosts": texts([one.host for one in standing]),
                "fens": int8s([one.outstanding_fen for one in standing]),
                "counts": int4s([one.outstanding_count for one in standing]),
            },
        )
    if batch.tells:
        link.queue("write_outbox", _outbox_columns(shard, batch, serials))


def _new_columns(shard: int, made: Sequence[tuple[Item, Entry, Leg]]) -> dict[str, Parameter]:
    asks = []
    for _, _, leg in made:
        assert leg.ask is not None, "a leg is made by an ask"
        asks.append(leg.ask)
    found = [leg for _, _, leg in made]
    return {
        "shard": shard,
        "business_date": made[0][1].business_date,
        "terminals": int4s([item.key.terminal_no for item, _, _ in made]),
        "batches": int4s([item.key.batch_no for item, _, _ in made]),
        "stans": int4s([item.key.stan for item, _, _ in made]),
        "merchants": int4s([item.merchant_no for item, _, _ in made]),
        "terminal_ids": texts([ask.terminal_id for ask in asks]),
        "merchant_ids": texts([ask.merchant_id for ask in asks]),
        "kinds": int2s([entry.kind for _, entry, _ in made]),
        "accounts": int2s([int(getattr(item.request, "account", 20)) for item, _, _ in made]),
        "pans": texts([ask.number.reveal() for ask in asks]),
        "modes": texts([getattr(item.request, "entry_mode", "") for item, _, _ in made]),
        "rrns": texts([entry.rrn for _, entry, _ in made]),
        "asked": instants([entry.decided_at for _, entry, _ in made]),
        "gives_up": instants([leg.gives_up_at for leg in found]),
        "legs": int8s([leg.leg_no for leg in found]),
        "amounts": int8s([leg.amount_fen for leg in found]),
        "hosts": texts([leg.host for leg in found]),
        "debit_codes": int2s([leg.debit_code for leg in found]),
        "debit_owners": int8s([leg.debit_owner for leg in found]),
        "services": int2s([leg.service for leg in found]),
        "steps": int2s([leg.step for leg in found]),
        "transmitted": texts([leg.transmitted for leg in found]),
        "traces": int4s([leg.trace for leg in found]),
        "states": int2s([leg.state for leg in found]),
        "ended_at": instants([leg.ended_at for leg in found]),
        "ended_by": int8s([leg.ended_by or 0 for leg in found]),
        "bindings": int8s([ask.binding_no for ask in asks]),
    }


def _end_columns(shard: int, ended: Sequence[Leg]) -> dict[str, Parameter]:
    return {
        "shard": shard,
        "legs": int8s([leg.leg_no for leg in ended]),
        "states": int2s([leg.state for leg in ended]),
        "ended_at": instants([leg.ended_at for leg in ended]),
        "ended_by": int8s([leg.ended_by or 0 for leg in ended]),
        "codes": texts([leg.host_code for leg in ended]),
        "auths": texts([leg.host_auth for leg in ended]),
        "days": texts([leg.host_day for leg in ended]),
    }


def _outbox_columns(shard: int, batch: "Batch", serials: Serials) -> dict[str, Parameter]:
    tells: list[tuple[Tell, int]] = batch.tells
    numbers: list[int] = []
    keys: list[tuple[str, int]] = []
    for tell, _ in tells:
        number = serials.take()
        numbers.append(number)
        if tell.step == HostStep.ADVICE and tell.service != HostService.RETURN:
            keys.append(
                (tell.leg.transmitted, tell.leg.trace)
            )  # stood in: the advice is the transaction itself
        else:
            keys.append(host_key(trace_of(number), batch.now))
    return {
        "shard": shard,
        "now": batch.now,
        "numbers": int8s(numbers),
        "legs": int8s([tell.leg.leg_no for tell, _ in tells]),
        "hosts": texts([tell.leg.host for tell, _ in tells]),
        "steps": int2s([int(tell.step) for tell, _ in tells]),
        "services": int2s([tell.service for tell, _ in tells]),
        "reasons": texts([tell.reason for tell, _ in tells]),
        "amounts": int8s([tell.amount_fen for tell, _ in tells]),
        "entries": int8s([entry_no for _, entry_no in tells]),
        "rrns": texts([tell.leg.rrn for tell, _ in tells]),
        "transmitted": texts([key[0] for key in keys]),
        "traces": int4s([key[1] for key in keys]),
    }
