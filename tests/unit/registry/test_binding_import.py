"""Bound bank cards from import files: whole or nothing, the same again changes nothing, no number in clear anywhere."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from switch.domain.identifiers import CardNumber
from switch.keys.software_vault import SoftwareVault
from switch.registry.binding_desk import end_binding
from switch.registry.binding_import import TOLD_ONE_BY_ONE
from switch.registry.bindings import BINDINGS_MAX, seal_context
from switch.registry.exporting import export_csv, export_json
from switch.registry.import_files import ImportRefused
from switch.registry.import_format import BINDINGS, KINDS
from tests.unit.registry.helpers import (
    BANK,
    OPERATOR,
    bank_card_of,
    binding,
    bound,
    open_day,
    pan_of,
    run_import,
    write,
)

pytestmark = pytest.mark.server


@pytest.fixture
def db(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        yield connection


def rows(db: psycopg.Connection[Any], columns: str) -> list[Any]:
    return db.execute(f"SELECT {columns} FROM binding ORDER BY agreement_id".encode()).fetchall()


def faults(db: psycopg.Connection[Any], *paths: Path, **options: Any) -> set[tuple[str, str]]:
    before = rows(db, "binding_no, state, is_default")
    with pytest.raises(ImportRefused) as refusal:
        run_import(db, *paths, **options)
    assert rows(db, "binding_no, state, is_default") == before
    shown = str(refusal.value) + " ".join(map(str, refusal.value.faults))
    assert not any(bank_card_of(n) in shown or pan_of(n) in shown for n in range(5))
    return {(fault.place, fault.field) for fault in refusal.value.faults}


def test_bindings_come_in_with_the_cards_they_belong_to_and_their_numbers_rest_sealed(
    db: psycopg.Connection[Any], tmp_path: Path, vault: SoftwareVault
) -> None:
    document = bound(
        binding(1), binding(2, is_default=False, transaction_limit_fen=50_000, day_limit_fen=90_000)
    )
    report = run_import(db, write(tmp_path, document), numbers=lambda: vault)
    assert tuple(report.kinds["bindings"]) == (2, 2, 0)
    assert rows(
        db, "agreement_id, institution_id, is_default, transaction_limit_fen, day_limit_fen, state, bound_by"
    ) == [
        ("A-1", BANK, True, None, None, "ACTIVE", "tests"),
        ("A-2", BANK, False, 50_000, 90_000, "ACTIVE", "tests"),
    ]
    homes = db.execute("SELECT shard, card_no FROM card_route ORDER BY pan").fetchall()
    assert rows(db, "shard, card_no") == homes[:2]
    (sealed, tag), (other, _) = rows(db, "sealed, tag")
    number = CardNumber(bank_card_of(1))
    assert vault.open_account(sealed, seal_context(CardNumber(pan_of(1)), BANK, "A-1")) == number
    assert tag == vault.account_tag(number)
    assert number.reveal().encode() not in sealed + other


def test_the_same_files_again_change_nothing_and_a_difference_is_written_down_without_a_number(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    first = write(tmp_path, bound(binding(1), binding(2)))
    run_import(db, first)
    before = rows(db, "*")
    assert run_import(db, first).nothing_changed
    assert run_import(db, write(tmp_path, bound(binding(1, bank_card=None)))).nothing_changed
    assert rows(db, "*") == before
    report = run_import(db, write(tmp_path, bound(binding(1, day_limit_fen=100), binding(2))))
    assert tuple(report.kinds["bindings"]) == (2, 0, 1)
    notes = db.execute(
        "SELECT change FROM registry_change WHERE subject LIKE 'binding %' ORDER BY change_no"
    ).fetchall()
    assert len(notes) == 3
    assert notes[2][0]["before"]["day_limit_fen"] is None
    assert notes[2][0]["after"]["day_limit_fen"] == 100
    assert notes[0][0]["after"]["agreement_id"] == "A-1"
    log = json.dumps(db.execute("SELECT subject, change::text FROM registry_change").fetchall())
    assert not any(bank_card_of(n) in log or pan_of(n) in log for n in (1, 2))


def test_every_rule_of_a_binding_that_is_broken_is_told_and_nothing_changes(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    wrong = [
        binding(1, institution_id="99999999"),  # nobody
        binding(2, institution_id=OPERATOR),  # no bank
        binding(9),  # no such card
        binding(3, holder_confirmed=False),
        binding(4, bank_card=bank_card_of(4)[:-1] + str((int(bank_card_of(4)[-1]) + 1) % 10)),
        binding(1, agreement_id="A 1"),
        binding(1, bank_card=pan_of(1)),
        binding(1, confirmed_at="2024-03-01"),
        binding(1, confirmed_at="2024-03-01T10:30:00"),
        binding(1, confirmed_at="2024-02-30T10:30:00Z"),
        binding(1, confirmed_at=None),
        binding(1, state="PAUSED"),
        binding(1, day_limit_fen=-1),
    ]
    fields = [
        "institution_id", "institution_id", "pan", "holder_confirmed", "bank_card", "agreement_id", "bank_card",
        "confirmed_at", "confirmed_at", "confirmed_at", "confirmed_at", "state", "day_limit_fen",
    ]  # fmt: skip
    for record, field in zip(wrong, fields, strict=True):
        assert faults(db, write(tmp_path, bound(record))) == {("bindings[0]", field)}, field


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((binding(1), binding(1)), {("bindings[1]", "institution_id")}),
        (
            (binding(1), binding(2, pan=pan_of(1))),
            {("bindings[0]", "is_default"), ("bindings[1]", "is_default")},
        ),
        (
            (binding(1), binding(2, pan=pan_of(1), bank_card=bank_card_of(1), is_default=False)),
            {("bindings[0]", "bank_card"), ("bindings[1]", "bank_card")},
        ),
        ((binding(1, bank_card=None),), {("bindings[0]", "bank_card")}),
        ((binding(1, confirmed_at="2099-03-01T10:30:00Z"),), {("bindings[0]", "confirmed_at")}),
    ],
)
def test_what_only_shows_beside_other_records_is_told_too(
    db: psycopg.Connection[Any], tmp_path: Path, records: tuple[Any, ...], expected: set[tuple[str, str]]
) -> None:
    assert faults(db, write(tmp_path, bound(*records))) == expected


def test_a_known_agreement_keeps_its_card_and_its_number(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    run_import(db, write(tmp_path, bound(binding(1))))
    assert faults(db, write(tmp_path, bound(binding(1, bank_card=bank_card_of(2))))) == {
        ("bindings[0]", "bank_card")
    }
    assert faults(db, write(tmp_path, bound(binding(1, pan=pan_of(2))))) == {("bindings[0]", "pan")}
    second = binding(2, pan=pan_of(1))
    assert faults(db, write(tmp_path, bound(second))) == {("bindings[0]", "is_default")}


def test_another_becomes_the_default_when_the_same_file_takes_it_from_the_first(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    first, second = binding(1), binding(2, pan=pan_of(1), is_default=False)
    run_import(db, write(tmp_path, bound(first, second)))
    swapped = bound(second | {"is_default": True}, first | {"is_default": False})
    assert tuple(run_import(db, write(tmp_path, swapped)).kinds["bindings"]) == (2, 0, 2)
    assert rows(db, "is_default") == [(False,), (True,)]
    third = binding(3, pan=pan_of(1))
    run_import(db, write(tmp_path, bound(second | {"is_default": True, "state": "ENDED"}, third)))
    assert rows(db, "agreement_id, is_default, state") == [
        ("A-1", False, "ACTIVE"),
        ("A-2", True, "ENDED"),
        ("A-3", True, "ACTIVE"),
    ]


def test_a_binding_that_has_ended_stays_ended_and_its_number_can_be_bound_anew(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    old = write(tmp_path, bound(binding(1)), "old.json")
    run_import(db, old)
    run_import(db, write(tmp_path, bound(binding(1, state="ENDED"))))
    report = run_import(db, old)
    assert report.nothing_changed
    assert report.ended == 1
    assert rows(db, "state, ended_by, ended_at IS NOT NULL") == [("ENDED", "tests", True)]
    run_import(db, write(tmp_path, bound(binding(1, agreement_id="A-1-anew"))))
    assert rows(db, "agreement_id, state") == [("A-1", "ENDED"), ("A-1-anew", "ACTIVE")]


def test_a_card_has_so_many_active_bindings_and_no_more(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    many = [binding(n, pan=pan_of(1), is_default=n == 0) for n in range(BINDINGS_MAX)]
    one_more = binding(BINDINGS_MAX, pan=pan_of(1), is_default=False)
    assert len(faults(db, write(tmp_path, bound(*many, one_more)))) == BINDINGS_MAX + 1
    run_import(db, write(tmp_path, bound(*many)))
    assert faults(db, write(tmp_path, bound(one_more))) == {("bindings[0]", "pan")}


def test_an_export_has_no_number_and_comes_in_again_without_a_change(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    run_import(db, write(tmp_path, bound(binding(1), binding(2, state="ENDED"), binding(3, day_limit_fen=5))))
    stream = io.StringIO()
    export_json(db, stream, KINDS, lambda kind, count: None)
    assert not any(bank_card_of(n) in stream.getvalue() for n in (1, 2, 3))
    again = tmp_path / "again.json"
    again.write_text(stream.getvalue(), encoding="utf-8")
    assert run_import(db, again).nothing_changed
    export_csv(db, tmp_path, [BINDINGS], lambda kind, count: None)
    table = tmp_path / "bindings.csv"
    assert "bank_card" not in table.read_text()
    assert len(table.read_text().splitlines()) == 4
    assert run_import(db, table).nothing_changed


def test_a_dry_run_checks_numbers_and_keeps_nothing(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    report = run_import(db, write(tmp_path, bound(binding(1))), dry_run=True)
    assert tuple(report.kinds["bindings"]) == (1, 1, 0)
    assert rows(db, "1") == []


def test_what_a_binding_says_of_card_bank_and_number_cannot_be_rewritten(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    run_import(db, write(tmp_path, bound(binding(1), binding(2, state="ENDED"))))
    for change in (
        "UPDATE binding SET card_no = card_no + 1",
        "UPDATE binding SET sealed = 'x'",
        "UPDATE binding SET agreement_id = 'B'",
        "UPDATE binding SET state = 'ACTIVE', ended_at = NULL, ended_by = NULL WHERE state = 'ENDED'",
        "DELETE FROM binding",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            db.execute(change)


def test_a_binding_that_ends_while_an_import_writes_stays_ended(
    db: psycopg.Connection[Any], postgres_url: str, tmp_path: Path
) -> None:
    run_import(db, write(tmp_path, bound(binding(1), binding(2))))
    (number, _), *_ = rows(db, "binding_no, agreement_id")
    ended: list[Any] = []

    def told(step: str, _rows: int) -> None:
        if step == "writing":  # checked and planned, and nothing written yet
            with psycopg.connect(postgres_url, autocommit=True) as other:
                ended.append(end_binding(other, number, actor="desk", reason="stolen", evidence="call 7"))

    changed = bound(binding(1, day_limit_fen=5), binding(2, day_limit_fen=5))
    report = run_import(db, write(tmp_path, changed), progress=told)
    assert ended
    assert tuple(report.kinds["bindings"]) == (2, 0, 1)
    assert rows(db, "state, day_limit_fen") == [("ENDED", None), ("ACTIVE", 5)]
    notes = db.execute(
        "SELECT actor FROM registry_change WHERE subject = %s ORDER BY change_no", [f"binding {number}"]
    ).fetchall()
    assert notes == [("tests",), ("desk",)]


def test_two_files_at_once_that_each_make_a_default_give_a_card_one(
    postgres_url: str, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    run_import(db, write(tmp_path, bound()))
    ends: list[str] = []

    def bring_in(serial: int) -> None:
        record = binding(serial, pan=pan_of(1))
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            try:
                run_import(connection, write(tmp_path, bound(record), f"{serial}.json"))
            except ImportRefused as refusal:
                ends.append(refusal.faults[0].field)
            else:
                ends.append("bound")

    threads = [Thread(target=bring_in, args=(serial,)) for serial in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(ends) == ["bound", "is_default", "is_default"]
    assert rows(db, "is_default") == [(True,)]


def test_thousands_of_bindings_are_told_with_one_word_and_a_few_card_by_card(
    db: psycopg.Connection[Any], postgres_url: str, tmp_path: Path
) -> None:
    many = TOLD_ONE_BY_ONE + 1
    cards = bound(cards=many)
    run_import(db, write(tmp_path, cards))
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute("LISTEN registry")
        records = [binding(n) for n in range(1, many + 1)]
        run_import(db, write(tmp_path, bound(*records, cards=many)))
        run_import(
            db, write(tmp_path, bound(*({**one, "state": "ENDED"} for one in records[:2]), cards=many))
        )
        payloads = [notice.payload for notice in listener.notifies(timeout=60, stop_after=3)]
    homes = db.execute("SELECT shard, card_no FROM card_route WHERE pan = ANY(%s)", [[pan_of(1), pan_of(2)]])
    assert payloads == ["bindings", *sorted(f"binding:{shard}:{card_no}" for shard, card_no in homes)]
