"""Named queries: what a file of them may hold, and what is refused at import."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from switch.storage.sql import load

PACKAGE = "queries_of_a_test"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / PACKAGE
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    sys.modules.pop(PACKAGE, None)


def test_a_query_is_found_by_its_name_without_comments_and_semicolon(package: Path) -> None:
    (package / "queries.sql").write_text(
        "-- All of them.\n\n-- name: first\n-- Why it is so.\nSELECT 1\n  FROM t;\n\n-- name: second_2\nSELECT 2\n"
    )

    assert load(PACKAGE) == {"first": "SELECT 1\n  FROM t", "second_2": "SELECT 2"}


def test_a_package_may_keep_more_than_one_file(package: Path) -> None:
    (package / "other.sql").write_text("-- name: only\nSELECT 1;\n")

    assert load(PACKAGE, "other.sql") == {"only": "SELECT 1"}


def test_queries_cannot_be_changed(package: Path) -> None:
    (package / "queries.sql").write_text("-- name: only\nSELECT 1;\n")

    with pytest.raises(TypeError):
        load(PACKAGE)["only"] = "DROP TABLE t"  # type: ignore[index] # that it is refused is what is tested


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-- name: a\nSELECT 1;\n-- name: a\nSELECT 2;\n", "query a stands twice"),
        ("-- name: a\n-- only words\n", "query a is empty"),
        ("-- name: a\n;\n", "query a is empty"),
        ("SELECT 1;\n-- name: a\nSELECT 2;\n", "before the first name"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_at_import(package: Path, text: str, problem: str) -> None:
    (package / "queries.sql").write_text(text)

    with pytest.raises(ValueError, match=problem):
        load(PACKAGE)


def test_a_missing_name_is_an_error_where_it_is_used(package: Path) -> None:
    (package / "queries.sql").write_text("-- name: a\nSELECT 1;\n")

    with pytest.raises(KeyError):
        load(PACKAGE)["b"]
