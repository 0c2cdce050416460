"""Noise as a routing table: it is refused with faults, or it is a table that can be used. Nothing else comes out."""

from datetime import date

from hypothesis import given, settings
from hypothesis import strategies as st

from switch.registry.import_files import Faults
from switch.routing.route_check import check
from switch.routing.route_format import NAMES, read_rows
from tests.unit.routing.tables import HEADER, KNOWN, ask, text

GOOD = text(
    "10 cards=622202 HOST:icbc",
    "20 scope=HANGZHOU hours=22:00-06:00 REFUSE:57",
    "30 account=BANK HOST:ccb>REFUSE:92",
)


def takes(content: str) -> None:
    faults = Faults()
    rows = read_rows(content, "noise", faults)
    table, _ = check(rows, KNOWN, faults, name="noise", today=date(2026, 3, 15))
    if table is not None:
        table.decide(ask("622202"))
    for fault in faults.found:
        assert len(str(fault)) < 600


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_is_refused_or_read(content: str) -> None:
    takes(content)
    takes(HEADER + "\n" + content)


@settings(deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.characters(exclude_categories=("Cs",)))
def test_a_good_file_with_one_other_character_is_refused_or_read(place: int, character: str) -> None:
    takes(GOOD[:place] + character + GOOD[place + 1 :])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {}, optional={name: st.text("0123456789-: >ABHOSTLEDGERefus", max_size=20) for name in NAMES}
        ),
        max_size=8,
    )
)
def test_cells_of_nearly_right_letters_are_refused_or_read(rows: list[dict[str, str]]) -> None:
    takes("\n".join([HEADER, *(",".join(row.get(name, "") for name in NAMES) for row in rows)]))
