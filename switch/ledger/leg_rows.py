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
from switch.storage.arrays import instant_number, int4s, int8s, texts
from switch.storage.pipeline import Pipeline
from switch.storage.records import RecordKind, Records, bigint
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
# The composite types of the same names (migration 0049).
_LEG_LINE: Final = RecordKind("iiiihhzzqqhqhhih", "tttttttZQQ")
_ENDED_LEG_LINE: Final = RecordKind("qhzq", "ttt")
_OUTBOX_LINE: Final = RecordKind("qqhhqqi", "tttt")
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
        day = made[0][1].business_date
        link.queue("add_legs", {"shard": shard, "business_date": day, "lines": _new_lines(made)})
    new = {leg.leg_no for _, _, leg in made}
    ended = {
        leg.leg_no: leg
        for leg in (*batch.legs.values(), *batch.legs_asked.values())
        if leg.changed and leg.leg_no not in new
    }
    if ended:
        link.queue("end_legs", {"shard": shard, "lines": _ended_lines(list(ended.values()))})
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
        lines = _outbox_lines(batch, serials)
        link.queue("write_outbox", {"shard": shard, "now": batch.now, "lines": lines})


def _new_lines(made: Sequence[tuple[Item, Entry, Leg]]) -> Records:
    return _LEG_LINE.pack(_new_line(item, entry, leg) for item, entry, leg in made)


def _new_line(item: Item, entry: Entry, leg: Leg) -> tuple[int | bytes, ...]:
    ask = leg.ask
    assert ask is not None, "a leg is made by an ask"
    return (
        *item.key[:3],
        item.merchant_no,
        entry.kind,
        int(getattr(item.request, "account", 20)),
        instant_number(entry.decided_at),
        instant_number(leg.gives_up_at),
        leg.leg_no,
        leg.amount_fen,
        leg.debit_code,
        leg.debit_owner,
        leg.service,
        leg.step,
        leg.trace,
        leg.state,
        ask.terminal_id.encode(),
        ask.merchant_id.encode(),
        ask.number.reveal().encode(),
        getattr(item.request, "entry_mode", "").encode(),
        entry.rrn.encode(),
        leg.host.encode(),
        leg.transmitted.encode(),
        b"" if leg.ended_at is None else bigint(instant_number(leg.ended_at)),
        bigint(leg.ended_by or None),
        bigint(ask.binding_no or None),
    )


def _ended_lines(ended: Sequence[Leg]) -> Records:
    return _ENDED_LEG_LINE.pack(
        (
            leg.leg_no,
            leg.state,
            instant_number(leg.ended_at),
            leg.ended_by or 0,
            leg.host_code.encode(),
            leg.host_auth.encode(),
            leg.host_day.encode(),
        )
        for leg in ended
    )


def _outbox_lines(batch: "Batch", serials: Serials) -> Records:
    return _OUTBOX_LINE.pack(_outbox_line(batch, serials.take(), *tell) for tell in batch.tells)


def _outbox_line(batch: "Batch", number: int, tell: Tell, entry_no: int) -> tuple[int | bytes, ...]:
    leg = tell.leg
    if tell.step == HostStep.ADVICE and tell.service != HostService.RETURN:
        transmitted, trace = leg.transmitted, leg.trace  # stood in: the advice is the transaction itself
    else:
        transmitted, trace = host_key(trace_of(number), batch.now)
    return (
        number,
        leg.leg_no,
        int(tell.step),
        tell.service,
        tell.amount_fen,
        entry_no,
        trace,
        leg.host.encode(),
        tell.reason.encode(),
        leg.rrn.encode(),
        transmitted.encode(),
    )
