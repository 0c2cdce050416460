"""What the city would notice of loads and of a bank that was away, and how it tells them to people. No switch is needed for that."""

from datetime import date, datetime, time
from io import StringIO
from pathlib import Path
from random import Random
from typing import Any

import pytest
from rich.console import Console

from terminal_sim.city import bank, hospital, outage, summary
from terminal_sim.city.books import Books
from terminal_sim.city.day import Result
from terminal_sim.city.house import sample
from terminal_sim.city.loading import ACCOUNT_OF, End, Hall, Load
from terminal_sim.city.outage import Outage
from terminal_sim.city.plan import draw_city
from terminal_sim.city.process import HouseError, Resident
from terminal_sim.city.reckoning import Reckoning
from terminal_sim.city.street import Street
from terminal_sim.city.tally import Tally
from terminal_sim.city.transit import Fleet
from terminal_sim.kiosk import From
from terminal_sim.pos_client import Line

DAY = date(2026, 3, 2)


@pytest.fixture
def street() -> Street:
    plan = draw_city(1, 300, DAY)
    return Street(plan, Books(plan, today=DAY), Tally(1), Line("127.0.0.1", 1))


@pytest.fixture
def hall(street: Street) -> Hall:
    """Loads of 1, 2, 4 … fen, so that every sum tells what is in it."""
    made = Hall(street, Fleet(street.plan, Random(1), datetime.combine(DAY, time(12))))
    card = street.good_cards[0]
    for place, (source, end) in enumerate(
        (source, end) for source in (From.CASH, From.ONLINE) for end in End
    ):
        made.loads.append(Load(card, source, 1 << place, end))
    made.ever_in_suspense = 6
    made.top_ups, made.top_ups_fen = 1, 1 << 20
    return made


def test_the_cash_of_the_kiosks_is_that_of_loads_which_the_customer_did_not_get_back(hall: Hall) -> None:
    of_cash = {load.end: load.amount_fen for load in hall.loads if load.source is From.CASH}
    kept = of_cash[End.CONFIRMED] + of_cash[End.LOADED] + of_cash[End.SUSPENSE]
    assert hall.cash_fen == kept + (1 << 20)
    assert hall.fen(*End) == (1 << 12) - 1
    told = hall.document()
    assert told["authorised"] == told["confirmed"] + told["reversed"] + told["suspense"] == 10
    assert (told["asked"], told["declined"], told["by_source"]) == (12, 2, {"CASH": 6, "ONLINE": 6})


def test_who_loads_and_pays_from_a_bank_is_known_already() -> None:
    assert ACCOUNT_OF.keys() == {From.ONLINE, From.BOUND_BANK}


#   trusted, unknown, in flight   open, stood in, its fen        faults
MINUTES = [
    (3, 2, 1, {"open": 5, "stood_in_outstanding": 3, "stood_in_outstanding_fen": 900}, 0),
    (3, 2, 1, {"open": 6, "stood_in_outstanding": 4, "stood_in_outstanding_fen": 900}, 0),
    (3, 2, 1, {"open": 7, "stood_in_outstanding": 5, "stood_in_outstanding_fen": 900}, 1),
    (3, 2, 1, {"open": 4, "stood_in_outstanding": 2, "stood_in_outstanding_fen": 900}, 1),
    (3, 2, 0, {"open": 4, "stood_in_outstanding": 3, "stood_in_outstanding_fen": 900}, 1),
    (
        3,
        2,
        0,
        {"open": 5, "stood_in_outstanding": 3, "stood_in_outstanding_fen": bank.STAND_IN_SUM_FEN + 1},
        1,
    ),
]


@pytest.mark.parametrize(("trusted", "unknown", "in_flight", "owed", "faults"), MINUTES)
def test_what_terminals_saw_of_an_outage_is_held_against_what_the_bank_is_owed(
    street: Street, trusted: int, unknown: int, in_flight: int, owed: dict[str, Any], faults: int
) -> None:
    hour = outage._Hour(street, Outage(trusted=trusted, unknown=unknown - 1, unknown_loads=1), [])
    hour.codes["00 in flight"] = in_flight
    outage._compare(hour, owed)
    assert len(street.books.faults) == faults


@pytest.mark.parametrize(("amount", "own"), [(10_000, 3_000), (1, 0), (5, 2), (3, 1), (100, 30)])
def test_a_patients_own_share_is_rounded_half_up(amount: int, own: int) -> None:
    assert hospital.own_share_fen(amount) == own


def test_samples_of_a_metric_are_added_up_by_their_labels() -> None:
    text = 'a_total{host="bank",end="confirmed"} 3.0\na_total{host="bank",end="later"} 1.0\na_total_created{host="bank"} 9\n'
    assert sample(text, "a_total", host="bank") == 4
    assert sample(text, "a_total", end="confirmed", host="bank") == 3
    assert sample(text, "a_total", host="fund") == 0


async def test_a_service_that_ends_instead_of_being_ready_is_told_with_what_it_said(tmp_path: Path) -> None:
    service = Resident("the bank", tmp_path, tmp_path / "bank.log")
    with pytest.raises(HouseError, match=r"the bank did not come up: .*keys"):
        await service.start("sim", "host", "--institution", "1", "--keys", "keys.json", environment={})
    assert await service.stop() == 0


def shown(result: Result) -> str:
    out = StringIO()
    summary.show(result, Console(file=out, width=200, highlight=False, markup=False))
    return out.getvalue()


@pytest.mark.parametrize(("owed_fen", "said"), [(123_456, "the same, to the fen"), (123_457, "THEY DIFFER")])
def test_the_summary_tells_of_loads_and_of_the_bank_in_plain_lines(
    street: Street, hall: Hall, owed_fen: int, said: str
) -> None:
    result = Result(street.plan, street.books, street.tally, street, hall=hall)
    result.outage = Outage(
        unknown=4, refused=59, trusted=33, trusted_fen=51_230, owed=37, away_s=5.1, told_s=0.27
    )
    result.reckoning = Reckoning(123_456, owed_fen, 214, 260, hall.cash_fen)
    text = shown(result)
    assert said in text
    for part in (
        "for 5.1 s",
        "59 customers were refused",
        "33 were trusted",
        "512.30",
        "37 things within 0.27 s",
    ):
        assert part in text, part
    assert "still awaited" in text
    assert "\x1b" not in text
    document = summary.document(result)
    assert document["bank"]["agrees"] is (owed_fen == 123_456)
    assert document["outage"]["messages_owed"] == 37
    assert document["loads"]["suspense_waiting"] == 2
