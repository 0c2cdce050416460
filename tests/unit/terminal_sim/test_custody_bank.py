"""The simulated custody bank takes a payment order only as it stands, and does what its script says."""

import json
from datetime import date, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from switch.clearing.settlement.pain001 import Order, Side, Transfer, write_order
from switch.domain.calendar import SHANGHAI
from terminal_sim.commands import app
from terminal_sim.custody_bank import CustodyBank, Fate, OrderRefused

ACCOUNT = "6222000000000000012"
NUMBERS = ("P20240318000001", "P20240318000002")


def an_order(count: int = 2) -> bytes:
    head = Order(
        "O20240318001",
        datetime(2024, 3, 18, 9, 0, tzinfo=SHANGHAI),
        date(2024, 3, 18),
        Side("Card company <1> & co", ACCOUNT, "102331002029"),
        count,
        300,
    )
    to = Side("商戶 & sons", "6222123", "ICBKCNBJ")
    return b"".join(
        write_order(head, [Transfer(NUMBERS[n], 100 * (n + 1), to, "settlement") for n in range(2)])
    )


def test_each_payment_has_the_fate_that_the_script_gives_it() -> None:
    bank = CustodyBank(ACCOUNT, 1_000)
    paid = bank.order(an_order(), {NUMBERS[0]: Fate.RETURNED, NUMBERS[1]: Fate.TWICE})
    assert [(one.fen, one.name, one.agent) for one in paid] == [
        (100, "商戶 & sons", "ICBKCNBJ"),
        (200, "商戶 & sons", "ICBKCNBJ"),
    ]
    assert [(one.fen, one.is_credit) for one in bank.entries] == [
        (100, False),
        (100, True),
        (200, False),
        (200, False),
    ]
    assert bank.balance_fen == 600


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"<CtrlSum>3.00", b"<CtrlSum>3.01", "control sum"),
        (b"<NbOfTxs>2", b"<NbOfTxs>3", "number of transfers"),
        (NUMBERS[1].encode(), NUMBERS[0].encode(), "stands twice"),
        (ACCOUNT.encode(), b"6222000000000000013", "not an order on this account"),
        (b"pain.001.001.09", b"pain.001.001.03", "not a pain"),
        (b"</Document>", b"", "not XML"),
        (b">1.00<", b">1.005<", "whole fen"),
    ],
)
def test_an_order_that_does_not_hold_is_refused(old: bytes, new: bytes, words: str) -> None:
    with pytest.raises(OrderRefused, match=words):
        CustodyBank(ACCOUNT).order(an_order().replace(old, new))


def test_from_files_it_writes_its_papers(tmp_path: Path) -> None:
    path = tmp_path / "O20240318001.xml"
    path.write_bytes(an_order())
    base = ["bank", str(path), "--account", ACCOUNT, "--out", str(tmp_path / "bank"), "--json"]
    done = CliRunner().invoke(app, [*base, "--fate", f"{NUMBERS[0]}=less"])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert (document["payments"], document["closing_fen"]) == (2, -299)
    assert all((tmp_path / "bank" / name).stat().st_size for name in document["written"])
    assert CliRunner().invoke(app, [*base, "--fate", "x=lost"]).exit_code == 2
    path.write_bytes(b"<x/>")
    assert CliRunner().invoke(app, base).exit_code == 1
