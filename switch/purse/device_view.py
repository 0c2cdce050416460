"""One terminal or PSAM for operators: counters, holes, damaged records, alarms of what it brought."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from switch.purse.completeness import (
    SQL,
    Counter,
    Damaged,
    Gap,
    Owner,
    counter_of,
    gaps_of,
    missing,
    plain_name,
)
from switch.purse.counters import BY_NAME
from switch.purse.shadow import Connection

GAPS_SHOWN: Final = 1_000
ALARMS_SHOWN: Final = 100


class DeviceAlarm(NamedTuple):
    """An alarm about a record that the device brought."""

    alarm_no: int
    at: datetime
    kind: str
    detail: str
    acknowledged: bool


class DeviceView(NamedTuple):
    """All that is known. place: state and holder of a PSAM, empty for a terminal."""

    what: str  # terminal or psam
    owner: Owner
    place: str
    now: datetime
    counters: Sequence[Counter]
    names: Sequence[str]  # of the counters' owners
    gaps: Sequence[Gap]
    damaged: Sequence[Damaged]
    alarms: Sequence[DeviceAlarm]


async def view_device(
    connection: Connection, *, terminal: int | None = None, psam: int | None = None
) -> DeviceView:
    """terminal: terminal_no, with the PSAMs that were handed to it; or psam: the number of one. Exactly one of them."""
    assert (terminal is None) != (psam is None)
    found = await missing(connection, terminals=[] if terminal is None else [terminal])
    counters = list(found.counters)
    place, damaged = "", found.damaged
    if psam is not None:
        kind = BY_NAME["psam_serial"]
        one = await counter_of(connection, kind.number, psam)
        counters = [] if one is None else [one]
        ((state, merchant_id, terminal_id),) = await _all(
            connection, "psam_place", {"psam_no": plain_name(kind, psam)}
        )
        owner, place = Owner(plain_name(kind, psam), merchant_id), f"{state}, {terminal_id or 'no terminal'}"
        names = [owner.name for _ in counters]
    else:
        assert terminal is not None
        ((_, *named),) = await _all(connection, "names_of_terminals", {"owners": [terminal]})
        owner = Owner(*named)
        names = [found.owner(counter.kind, counter.owner).name for counter in counters]
    asked = [(counter.kind.number, counter.owner) for counter in counters]
    gaps = await gaps_of(connection, asked, closed=True, at_most=GAPS_SHOWN)
    about = {"psam": psam, "terminal_no": terminal, "at_most": ALARMS_SHOWN}
    alarms = [DeviceAlarm(*row) for row in await _all(connection, "alarms_of_terminal", about)]
    what = "terminal" if psam is None else "psam"
    return DeviceView(what, owner, place, found.now, counters, names, gaps, damaged, alarms)


async def _all(connection: Connection, name: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
    return list(await (await connection.execute(SQL[name].encode(), parameters)).fetchall())
