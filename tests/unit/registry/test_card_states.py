"""Card states of a file against what the desk has done, before the import and while it runs."""

import asyncio
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.ledger.card_desk import change_card, find_card
from switch.ledger.card_states import Move
from switch.ledger.rules import CardStatus
from switch.registry.card_import import Kept
from tests.unit.registry.helpers import DAY, Gate, card, city, open_day, pan_of, run_import, write

pytestmark = pytest.mark.server

Db = psycopg.Connection[Any]


@pytest.fixture
def db(postgres_url: str) -> Iterator[Db]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        yield connection


def at_the_desk(url: str, *moves: Move) -> None:
    """Make these moves with the first card, on a connection of the desk's own."""

    async def make() -> None:
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            for move in moves:
                place = await find_card(connection, pan_of(1))
                await change_card(connection, place, move, actor="ann", reason="by telephone")

    asyncio.run(make())


def state_of(db: Db) -> CardStatus:
    row = db.execute("SELECT state FROM card WHERE pan = %s", (pan_of(1),)).fetchone()
    assert row is not None
    return CardStatus(row[0])


@pytest.mark.parametrize("opening", [{"online_opening_fen": 100}, {"purse_opening_fen": 100}])
@pytest.mark.parametrize(
    "moves",
    [(Move.LOSE,), (Move.LOSE, Move.CONFIRM), (Move.CONFIRM, Move.REPLACE), (Move.CANCEL, Move.CLOSE)],
    ids=lambda moves: moves[-1].value,
)
def test_what_the_desk_does_while_an_import_runs_is_not_undone_by_it(
    db: Db, postgres_url: str, tmp_path: Path, moves: tuple[Move, ...], opening: dict[str, int]
) -> None:
    run_import(db, write(tmp_path, city(cards=[card(1, **opening)])))

    def enter_day(_: psycopg.ClientCursor[Any], __: Sequence[int]) -> date:
        at_the_desk(postgres_url, *moves)  # after the files were compared, before the holders are locked
        return DAY

    later = city(cards=[card(1, valid_through="2035-01-01", **opening)])
    run_import(db, write(tmp_path, later), enter_day=enter_day)
    (lost,) = db.execute("SELECT lost_at IS NOT NULL FROM card").fetchall()
    assert lost == (Move.CANCEL not in moves,)
    assert (
        state_of(db)
        is {
            Move.LOSE: CardStatus.LOSS_TEMP,
            Move.CONFIRM: CardStatus.LOSS_FORMAL,
            Move.REPLACE: CardStatus.REPLACED,
            Move.CLOSE: CardStatus.CANCELLED,
        }[moves[-1]]
    )


#   moves at the desk   file             state after     kept
FILES = """
    damage              ACTIVE           DAMAGED         yes
    damage              LOSS_TEMP        DAMAGED         yes
    damage              REPLACED         REPLACED        no
    expire              ACTIVE           EXPIRED         yes
    cancel              ACTIVE           CANCEL_PENDING  yes
    cancel              REPLACED         CANCEL_PENDING  yes
    cancel              CANCELLED        CANCELLED       no
    cancel,close        ACTIVE           CANCELLED       yes
    confirm,replace     ACTIVE           REPLACED        yes
    confirm,replace     CANCEL_PENDING   REPLACED        yes
    lose                ACTIVE           LOSS_TEMP       yes
    lose                READY            LOSS_TEMP       yes
    lose                LOSS_FORMAL      LOSS_FORMAL     no
    lose                REPLACED         REPLACED        no
    confirm             LOSS_TEMP        LOSS_FORMAL     yes
    -                   READY            ACTIVE          yes
    -                   LOSS_FORMAL      LOSS_FORMAL     no
    -                   REPLACED         REPLACED        no
    -                   CANCELLED        CANCELLED       no
"""


def test_a_files_state_is_taken_where_it_can_follow_that_of_the_card_and_else_the_card_keeps_its_own(
    db: Db, postgres_url: str, tmp_path: Path
) -> None:
    run_import(db, write(tmp_path, city()))
    for line in FILES.split("\n")[1:-1]:
        moves, in_file, after, kept = line.split()
        db.execute("UPDATE card SET state = 1, lost_at = NULL, loss_lapses_at = NULL")
        at_the_desk(postgres_url, *(Move(move) for move in moves.split(",") if move != "-"))
        before = state_of(db)
        document = write(tmp_path, city(cards=[card(1, state=in_file, valid_through="2035-01-01")]))
        report = run_import(db, document)
        assert state_of(db).name == after, line
        assert report.kept == ([Kept(before.name, in_file, 1)] if kept == "yes" else []), line
        assert db.execute("SELECT valid_through FROM card").fetchall() == [(date(2035, 1, 1),)], line
        assert run_import(db, document).nothing_changed, line


def test_an_old_file_that_finds_nothing_to_do_needs_no_gate_and_says_what_it_left(
    db: Db, postgres_url: str, tmp_path: Path
) -> None:
    document = write(tmp_path, city(cards=[card(serial) for serial in (1, 2)]))
    run_import(db, document)
    at_the_desk(postgres_url, Move.DAMAGE)
    gate = Gate()
    report = run_import(db, document, enter_day=gate)
    assert (report.nothing_changed, report.kept, gate.shards) == (True, [Kept("DAMAGED", "ACTIVE", 1)], [])


@pytest.mark.parametrize("state", ["LOSS_FORMAL", "DAMAGED"])
def test_a_report_that_has_lapsed_gives_its_instant_to_no_later_state(
    db: Db, tmp_path: Path, state: str
) -> None:
    run_import(db, write(tmp_path, city(cards=[card(1, state="LOSS_TEMP")])))
    db.execute("UPDATE card SET loss_lapses_at = lost_at + interval '1 microsecond'")
    (first,) = db.execute("SELECT lost_at FROM card").fetchall()
    run_import(db, write(tmp_path, city(cards=[card(1, state=state)])))
    (now,) = db.execute("SELECT lost_at, loss_lapses_at FROM card").fetchall()
    assert now[1] is None
    assert now[0] > first[0] if state == "LOSS_FORMAL" else now[0] is None


def test_a_report_in_force_keeps_its_instant_when_a_file_confirms_it(db: Db, tmp_path: Path) -> None:
    run_import(db, write(tmp_path, city(cards=[card(1, state="LOSS_TEMP")])))
    first = db.execute("SELECT lost_at FROM card").fetchall()
    run_import(db, write(tmp_path, city(cards=[card(1, valid_through="2035-01-01")])))
    assert db.execute("SELECT lost_at FROM card WHERE loss_lapses_at IS NOT NULL").fetchall() == first
    run_import(db, write(tmp_path, city(cards=[card(1, state="LOSS_FORMAL")])))
    assert db.execute("SELECT lost_at FROM card WHERE loss_lapses_at IS NULL").fetchall() == first
