"""How a version of a terminals' list is rolled out 灰度發布: in stages, stopped by its own rules, or taken back.

A version is published whole; a roll-out says who is offered it. Versions only grow: taking one back publishes the content before it under a
new number. Everything is in the database, and each move names what it moves from: of two processes, or of a process and a person, one wins.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.errors import InputRefused
from switch.storage.sql import load

SQL = load("switch.registry", "lists.sql")

Connection = psycopg.Connection[tuple[Any, ...]]

KINDS: Final = ("HOT", "CITY", "PARAM")
STATES: Final = ("RUNNING", "STOPPED", "COMPLETE", "SUPERSEDED")
EVERYBODY: Final = "100"
STAGES_MAX: Final = 20
NAMED_MAX: Final = 4_096  # terminals that a manifest can name
_STAGE = re.compile(r"[1-9]\d?|100|[a-z][a-z0-9-]{0,31}")
BY_RULE: Final = "switch"

# What makes the switch stop a roll-out by itself.
BAD_MIN: Final = 3  # terminals; one or two are defects of their own
BAD_PCT: Final = 2  # of those that fetched it
SILENT_S: Final = 1_800
SILENT_PCT: Final = 20  # of those that fetched it
SILENT_RATIO: Final = 2  # times the share of silent ones among those that did not
SIGN_ONS_MAX: Final = 5  # since it was fetched, and four a day


class Plan(NamedTuple):
    """How a version is to be rolled out. soak_s: the least time that a stage lasts; coverage_pct: of its terminals that must have it."""

    stages: tuple[str, ...] = (EVERYBODY,)
    soak_s: int = 3_600
    coverage_pct: int = 95

    @property
    def staged(self) -> bool:
        """Whether somebody has to wait."""
        return len(self.stages) > 1


def read_plan(text: str, soak_s: int, coverage_pct: int) -> Plan:
    """`pilot,5,25,100`: groups and percentages that grow, everybody last. InputRefused names the rule."""
    stages = tuple(stage.strip().removesuffix("%") for stage in text.split(","))
    if len(stages) > STAGES_MAX or not all(_STAGE.fullmatch(stage) for stage in stages):
        raise InputRefused(f"stages: at most {STAGES_MAX} percentages from 1 to 100 or names of groups")
    percentages = [int(stage) for stage in stages if stage.isdecimal()]
    if sorted(set(percentages)) != percentages or stages[-1] != EVERYBODY or len(set(stages)) < len(stages):
        raise InputRefused("stages: percentages grow, nothing stands twice, and the last stage is 100")
    return Plan(stages, soak_s, coverage_pct)


def percent_of(stages: Sequence[str], stage: int) -> int:
    """The percentage that counts at a stage (from 1)."""
    return max((int(name) for name in stages[:stage] if name.isdecimal()), default=0)


class Newest(NamedTuple):
    """The newest version of a kind, and its roll-out; rollout_no None: it has none, and is for everybody. Version 0: there is none yet."""

    version: int = 0
    entries: int = 0
    rollout_no: int | None = None
    previous: int | None = None
    state: str | None = None
    stage: int | None = None
    stage_count: int | None = None
    percent: int | None = None
    stages: tuple[str, ...] | None = None

    @property
    def unfinished(self) -> bool:
        """Whether some terminals are kept on the version before."""
        return self.state == "STOPPED" or (self.state == "RUNNING" and self.stage != self.stage_count)


def newest_of(connection: Connection, kind: str) -> Newest:
    """The newest version of a kind."""
    row = connection.execute(SQL["newest"].encode(), {"kind": kind}).fetchone()
    return Newest(*row) if row is not None else Newest()


def require_finished(connection: Connection, kind: str) -> Newest:
    """Take the lock under which versions are published; InputRefused while a roll-out keeps terminals on two versions."""
    connection.execute(SQL["lock_lists"].encode())
    newest = newest_of(connection, kind)
    if newest.unfinished:
        raise InputRefused(
            f"version {newest.version} is still being rolled out or is stopped; end that first:"
            " `cardswitch lists rollout`, or `lists rollback`"
        )
    return newest


def begin(
    connection: Connection,
    kind: str,
    version: int,
    plan: Plan,
    actor: str,
    *,
    before: Newest,
    detail: str = "",
    previous: int | None = None,
) -> None:
    """Begin to roll out a version that this transaction has made. before: what `require_finished` returned."""
    if before.state == "RUNNING":
        _move(connection, before, "SUPERSEDED", ("RUNNING",), "SUPERSEDE", actor, f"by version {version}")
    groups = [stage for stage in plan.stages if not stage.isdecimal()]
    known: dict[str, int] = dict(
        connection.execute(SQL["known_groups"].encode(), {"names": groups}).fetchall()
    )
    for group in groups:
        if group not in known:
            raise InputRefused(f"stages: there is no group {group} with a terminal in it")
    if sum(known.values()) > NAMED_MAX:
        raise InputRefused(f"stages: groups may name at most {NAMED_MAX} terminals")
    values: dict[str, Any] = {
        "kind": kind,
        "version": version,
        "previous": before.version if previous is None else previous,
        "stages": list(plan.stages),
        "percent": percent_of(plan.stages, 1),
        "coverage_pct": plan.coverage_pct,
        "soak_s": plan.soak_s,
    }
    row = connection.execute(SQL["begin_rollout"].encode(), values).fetchone()
    assert row is not None
    made = {"rollout_no": row[0], "stages": list(plan.stages)}
    connection.execute(SQL["name_members"].encode(), made)
    _add_event(connection, row[0], "BEGIN", 1, actor, detail)
    connection.execute(SQL["announce"].encode())


def begin_back(
    connection: Connection, kind: str, version: int, actor: str, *, before: Newest, base: int
) -> None:
    """Give everybody at once the content of an older version under a new number. The roll-out of the one before ends here."""
    _move(
        connection,
        before,
        "SUPERSEDED",
        ("RUNNING", "STOPPED"),
        "SUPERSEDE",
        actor,
        f"taken back by version {version}",
    )
    ended = before._replace(state="SUPERSEDED")
    detail = f"back to what version {base} says"
    begin(connection, kind, version, Plan(), actor, before=ended, detail=detail, previous=base)


def stop(connection: Connection, kind: str, actor: str, reason: str) -> Newest:
    """Nobody further is offered the newest version; who has it keeps it. InputRefused when it is not being rolled out."""
    with connection.transaction():
        newest = newest_of(connection, kind)
        if not _move(connection, newest, "STOPPED", ("RUNNING",), "STOP", actor, reason):
            raise InputRefused(f"version {newest.version} is not being rolled out")
        return newest


def resume(connection: Connection, kind: str, actor: str) -> Newest:
    """A stopped roll-out goes on where it was."""
    with connection.transaction():
        newest = newest_of(connection, kind)
        if not _move(connection, newest, "RUNNING", ("STOPPED",), "RESUME", actor, ""):
            raise InputRefused(f"version {newest.version} is not stopped")
        return newest


def advance(connection: Connection, kind: str, actor: str) -> Newest:
    """The next stage now, whatever the rules say: a person answers for it."""
    with connection.transaction():
        newest = newest_of(connection, kind)
        if newest.state != "RUNNING" or newest.stage == newest.stage_count:
            raise InputRefused(f"version {newest.version} has no further stage to go to")
        assert newest.rollout_no is not None
        assert newest.stages is not None
        assert newest.stage is not None
        row = connection.execute(SQL["set_stage"].encode(), next_stage(newest)).fetchone()
        if row is None:
            raise InputRefused("somebody else has just moved it")
        _add_event(connection, newest.rollout_no, "STAGE", newest.stage + 1, actor, "by hand")
        connection.execute(SQL["announce"].encode())
        return newest_of(connection, kind)


def next_stage(at: "Newest | Figures") -> dict[str, Any]:
    """Values of the move to the stage after this one."""
    assert at.stage is not None
    assert at.stages is not None
    stage = at.stage + 1
    return {"rollout_no": at.rollout_no, "stage": stage, "percent": percent_of(at.stages, stage)}


def _move(
    connection: Connection,
    at: Newest,
    state: str,
    before: Sequence[str],
    action: str,
    actor: str,
    detail: str,
) -> bool:
    values = {"rollout_no": at.rollout_no, "state": state, "before": list(before)}
    row = connection.execute(SQL["set_state"].encode(), values).fetchone()
    if row is None:
        return False
    assert at.rollout_no is not None
    _add_event(connection, at.rollout_no, action, row[0], actor, detail)
    connection.execute(SQL["announce"].encode())
    return True


def _add_event(
    connection: Connection, rollout_no: int, action: str, stage: int, actor: str, detail: str
) -> None:
    values = {"rollout_no": rollout_no, "action": action, "stage": stage, "actor": actor, "detail": detail}
    connection.execute(SQL["add_event"].encode(), values)


# --- figures and rules


class Figures(NamedTuple):
    """A roll-out and what its terminals make of it. Counts are of active terminals seen within a week; to_95_s: None until then."""

    rollout_no: int
    kind: str
    version: int
    previous: int
    stages: tuple[str, ...]
    stage: int
    percent: int
    state: str
    coverage_pct: int
    soak_s: int
    started_at: datetime
    staged_at: datetime
    staged_s: float
    reached: int
    held: int
    fetched: int
    refused: int
    restless: int
    silent: int
    others: int
    others_silent: int
    to_95_s: float | None

    @property
    def coverage(self) -> float:
        """Per cent of the terminals reached that hold the version; all of none are all."""
        return 100.0 * self.held / self.reached if self.reached else 100.0


class Move(Enum):
    """What the rules do with a roll-out."""

    WAIT = auto()
    STAGE = auto()
    STOP = auto()
    COMPLETE = auto()


def judge(at: Figures) -> tuple[Move, str]:
    """What to do now, and why. Health goes before coverage: a list that nobody can use is often held by all.

    Silence counts only against terminals on the version before: at night, and when nobody is left to compare with, it says nothing.
    """
    bad = at.refused + at.restless
    if bad >= BAD_MIN and bad * 100 >= BAD_PCT * at.fetched:
        return (
            Move.STOP,
            f"{at.refused} terminals refused it and {at.restless} sign on again and again, of {at.fetched}",
        )
    if (
        at.silent >= BAD_MIN
        and at.others >= BAD_MIN
        and at.silent * 100 >= SILENT_PCT * at.fetched
        and at.silent * at.others > SILENT_RATIO * at.others_silent * at.fetched
    ):
        return (
            Move.STOP,
            f"{at.silent} of {at.fetched} terminals fell silent with it, {at.others_silent} of {at.others} without it",
        )
    last = at.stage == len(at.stages)
    if at.coverage < at.coverage_pct:
        return Move.WAIT, f"{at.held} of {at.reached} terminals have it"
    if last:
        # With nobody reached there is nothing to complete: terminals may only not have been seen yet.
        return (
            (Move.COMPLETE, f"{at.held} of {at.reached} terminals have it") if at.reached else (Move.WAIT, "")
        )
    if at.staged_s < at.soak_s:
        return Move.WAIT, f"this stage lasts another {at.soak_s - at.staged_s:.0f} s"
    if not at.reached:
        return Move.WAIT, "no terminal of this stage has been seen within a week"
    return Move.STAGE, f"{at.held} of {at.reached} terminals have it"


_PARAMETERS: Final[Mapping[str, Any]] = {"sign_ons_max": SIGN_ONS_MAX, "silent_s": SILENT_S}


def figures_values(rollout_no: int) -> dict[str, Any]:
    """Values of the query `figures`."""
    return {"rollout_no": rollout_no, **_PARAMETERS}


def status_of(connection: Connection, kinds: Sequence[str] = KINDS) -> list[Figures]:
    """The newest roll-out of each kind."""
    chosen = {"kinds": list(kinds), "states": list(STATES)}
    rows = connection.execute(SQL["rollouts"].encode(), chosen).fetchall()
    found = (
        connection.execute(SQL["figures"].encode(), figures_values(number)).fetchone() for (number,) in rows
    )
    return [Figures(*row) for row in found if row is not None]


class Event(NamedTuple):
    """A line of the history."""

    at: datetime
    actor: str
    kind: str
    version: int
    action: str
    stage: int
    detail: str


def history_of(connection: Connection, kinds: Sequence[str], most: int) -> list[Event]:
    """What was done, the last first."""
    rows = connection.execute(SQL["events"].encode(), {"kinds": list(kinds), "most": most})
    return [Event(*row) for row in rows]


# --- groups


def change_group(connection: Connection, name: str, add: Sequence[str], remove: Sequence[str]) -> None:
    """Put terminals into a group and take others out. InputRefused for a name that cannot be one, and for unknown terminals."""
    if not _STAGE.fullmatch(name) or name[0].isdecimal():
        raise InputRefused("group: 1 to 32 small letters, digits and dashes, a letter first")
    with connection.transaction():
        ids = {"terminal_ids": [*add, *remove]}
        unknown = connection.execute(SQL["unknown_terminals"].encode(), ids).fetchall()
        if unknown:
            raise InputRefused(f"not registered: {', '.join(terminal_id for (terminal_id,) in unknown)}")
        connection.execute(SQL["add_to_group"].encode(), {"name": name, "terminal_ids": list(add)})
        connection.execute(SQL["take_from_group"].encode(), {"name": name, "terminal_ids": list(remove)})


def groups_of(connection: Connection) -> list[tuple[str, list[str]]]:
    """Every group and its terminals, by name."""
    return [(name, members) for name, members in connection.execute(SQL["groups"].encode())]
