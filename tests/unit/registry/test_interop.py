"""Whose cards are whose: leading digits, circles and scopes in the registry's files, and what routing reads of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.circles import Circle
from switch.registry.import_files import ImportRefused
from switch.registry.import_format import BINS_MAX
from switch.registry.issuers import read_participants
from tests.unit.registry.helpers import OPERATOR, city, open_day, run_import, write

pytestmark = pytest.mark.server

OWN, NEXT = "99993350FFFFFFFF", "99993310FFFFFFFF"


@pytest.fixture
def db(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        yield connection


def _issuers(**changes: dict[str, Any]) -> list[dict[str, Any]]:
    """The two issuers of the city, changed."""
    own = {"issuer_id": OWN, "institution_id": OPERATOR, "own": True}
    other = {"issuer_id": NEXT, "institution_id": "99993310", "own": False}
    return [own | changes.get("own", {}), other | changes.get("other", {})]


def _import(db: psycopg.Connection[Any], folder: Path, issuers: list[dict[str, Any]]) -> None:
    run_import(db, write(folder, city(card_issuers=issuers)))


def test_a_file_from_before_the_new_columns_keeps_its_meaning(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    _import(db, tmp_path, _issuers())
    own, other = sorted(read_participants(db, [OWN]).issuers, key=lambda issuer: not issuer.own)
    assert (own.own, own.bins, own.circle, own.scope, own.given) == (
        True,
        ("313350",),
        Circle.LOCAL,
        Circle.NATION,
        False,
    )
    assert (other.bins, other.circle, other.scope) == (("313310",), Circle.NATION, Circle.NATION)
    assert read_participants(db, []).scopes == {OPERATOR: Circle.NATION, "99993310": Circle.NATION}


def test_an_own_issuer_of_the_settings_is_ours_before_it_is_registered(db: psycopg.Connection[Any]) -> None:
    assert [(one.issuer_id, one.own, one.bins) for one in read_participants(db, [OWN]).issuers] == [
        (OWN, True, ("313350",))
    ]


def test_digits_circle_and_scopes_are_taken_in_changed_and_exported_again(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    issuers = _issuers(
        own={"bins": "62335 313350"}, other={"circle": "HANGZHOU", "scope": "DELTA", "bins": "313310"}
    )
    institutions = [one | {"scope": "HANGZHOU"} for one in city()["institutions"]]
    path = write(tmp_path, city(card_issuers=issuers, institutions=institutions))
    assert run_import(db, path).kinds["card_issuers"].created == 2
    assert run_import(db, path).nothing_changed
    read = read_participants(db, [OWN])
    assert {(one.bins, one.circle, one.scope) for one in read.issuers} == {
        (("313350", "62335"), Circle.LOCAL, Circle.NATION),
        (("313310",), Circle.HANGZHOU, Circle.DELTA),
    }
    assert set(read.scopes.values()) == {Circle.HANGZHOU}
    _import(db, tmp_path, _issuers())
    assert {one.bins for one in read_participants(db, [OWN]).issuers} == {("313350",), ("313310",)}


#   what a file says of the other issuer, or of ours                  field that is wrong
WRONG = [
    ({"other": {"circle": "WORLD"}}, "circle"),
    ({"other": {"scope": "delta"}}, "scope"),
    ({"own": {"circle": "DELTA"}}, "circle"),
    ({"other": {"bins": "3"}}, "bins"),
    ({"other": {"bins": "3133100000000"}}, "bins"),
    ({"other": {"bins": "3133,3134"}}, "bins"),
    ({"other": {"bins": "3133  3134"}}, "bins"),
    ({"other": {"bins": "3133 3133"}}, "bins"),
    ({"other": {"bins": " ".join(str(n) for n in range(1000, 1001 + BINS_MAX))}}, "bins"),
    ({"other": {"bins": "313350"}}, "bins"),  # what ours has by its region
    ({"other": {"bins": "62"}, "own": {"bins": "62 313350"}}, "bins"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG)
def test_what_cannot_be_is_refused_by_field(
    db: psycopg.Connection[Any], tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ImportRefused) as refused:
        _import(db, tmp_path, _issuers(**changes))
    assert {fault.field for fault in refused.value.faults} == {field}


def test_digits_that_a_registered_issuer_has_cannot_be_given_to_another(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    _import(db, tmp_path, _issuers(own={"bins": "62335"}))
    later = city(card_issuers=[_issuers(other={"bins": "62335"})[1]], cards=None)
    with pytest.raises(ImportRefused, match="1 fault"):
        run_import(db, write(tmp_path, later))
    within = city(card_issuers=[_issuers(other={"bins": "623351"})[1]], cards=None)
    run_import(db, write(tmp_path, within))


def test_an_own_issuer_elsewhere_is_refused_by_the_database_too(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO institution (institution_id, name, role) VALUES ('99993350', 'x', 'ISSUER')"
        )
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(
                "INSERT INTO card_issuer (issuer_id, institution_id, own, circle) VALUES (%s, '99993350', true, 'DELTA')",
                (bytes.fromhex(OWN),),
            )
