"""A terminal made from the documents alone lives through the end of a day, and its merchant's file says what it believes."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.scenarios.foreign_city import MARKET, ONLINE_PPM, PURSE_PPM, ForeignCity, pan
from tests.scenarios.foreign_client import Terminal
from tests.scenarios.foreign_codec import Message
from tests.scenarios.foreign_purse import read_mr
from tests.scenarios.test_foreign_batches import ride, signed

pytestmark = pytest.mark.server


def fee_fen(amount_fen: int, ppm: int) -> int:
    """A merchant's fee, in whole fen."""
    return min(amount_fen, (amount_fen * ppm + 500_000) // 1_000_000)


def approved(terminal: Terminal, frame: bytes) -> Message:
    """The answer, which is 00."""
    answer = terminal.ask(frame)
    assert answer.code == "00"
    return answer


def market_file(city: ForeignCity, day: str) -> Path:
    """The MR file of that day that holds the market's lines."""
    folder = city.folder / "data" / "clearing" / day
    found = [
        path for path in folder.glob("MR*") if path.suffix != ".ok" and MARKET.encode() in path.read_bytes()
    ]
    assert len(found) == 1
    return found[0]


def test_a_day_is_closed_while_the_terminal_is_signed_on(foreign_city: ForeignCity) -> None:
    terminal = foreign_city.terminal(201, merchant=MARKET)
    assert terminal.sign_on().code == "00"
    card = pan(17)
    believed: Counter[tuple[str, int]] = Counter()  # account kind and signed amount
    bought = approved(terminal, terminal.purchase(card, 12_345))
    approved(terminal, terminal.purchase(card, 99))
    voided = approved(terminal, terminal.purchase(card, 500))
    approved(terminal, terminal.void(voided))
    approved(terminal, terminal.refund(bought, 2_345))
    lost = terminal.purchase(card, 700)
    approved(terminal, lost)
    approved(terminal, terminal.reversal(lost, bought.text(13)))
    believed.update([("10", 12_345), ("10", 99), ("10", 500), ("10", -500), ("10", -2_345)])
    assert terminal.ask(terminal.purchase(pan(999), 1)).code == "14"
    trainee = replace(terminal, header="613110310001")
    approved(trainee, trainee.purchase(card, 8_888))
    terminal.next_trace()
    records = [signed(foreign_city, ride(pan(45), merchant=MARKET)) for _ in range(3)]
    approved(terminal, terminal.upload(records))
    believed.update([("50", 200)] * 3)

    open_day = bought.text(15)
    foreign_city.run("close", "--yes")
    (date,) = (folder.name for folder in (foreign_city.folder / "data" / "clearing").glob("2*"))
    assert date[4:] == open_day

    after = approved(terminal, terminal.purchase(card, 1_000))  # the same session and batch, the next day
    assert after.text(15) != open_day
    assert after.text(60)[2:8] == bought.text(60)[2:8]

    sales = read_mr(market_file(foreign_city, date))
    counted = Counter((sale.account, sale.amount_fen) for sale in sales)
    for sale in sales:
        ppm = PURSE_PPM if sale.account == "50" else ONLINE_PPM
        fee = fee_fen(abs(sale.amount_fen), ppm)
        assert sale.fee_fen == (-fee if sale.amount_fen > 0 else fee)
    # A purchase and its reversal: either both are lines or neither is.
    reversed_lines = counted - believed
    assert not believed - counted
    assert reversed_lines in (Counter(), Counter([("10", 700), ("10", -700)]))
    assert sum(sale.amount_fen for sale in sales) == sum(fen * times for (_, fen), times in believed.items())
    assert all(sale.card.startswith("315800") and "*" not in sale.card[:6] for sale in sales)

    foreign_city.run("files", "--date", date)
    foreign_city.run("audit")
