"""What the terminal sends is what the switch's message room reads: two hands that wrote the same dialect."""

from datetime import date

import pytest

from switch.domain import transactions as asked
from switch.domain.transactions import AccountKind, Kind, PinFormat
from switch.messages.codec import decode
from switch.messages.mapping import read_request
from terminal_sim.crypto import MAC_ALGORITHM
from terminal_sim.frames import CardData, Terminal
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import Request
from tests.unit.terminal_sim.false_switch import FalseSwitch
from tests.unit.terminal_sim.test_pos import record, settle

CARD = CardData("3133500100000001239", expiry="3403")


@pytest.fixture(params=list(MAC_ALGORITHM))
def both(request: pytest.FixtureRequest) -> tuple[Pos, FalseSwitch]:
    """A signed-on terminal under each MAC, and its switch."""
    switch = FalseSwitch(Terminal("33500001", "993350054110001", bytes(range(16)), request.param))
    pos = Pos(switch.terminal, today=lambda: date(2024, 3, 15))
    settle(pos, switch, pos.sign_on())
    return pos, switch


def read(pos: Pos, request: Request) -> asked.Request:
    return read_request(decode(pos.pack(request)[2:]))


def test_administration(both: tuple[Pos, FalseSwitch]) -> None:
    pos, _ = both
    for mode in ("001", "003", "004", "005", "006"):
        assert read(pos, pos.sign_on(mode)) == asked.SignOn(mode, "JXSMK00000000001", "01")
    assert read(pos, pos.echo()) == asked.Echo()
    assert read(pos, pos.sign_off()) == asked.SignOff()
    assert read(pos, pos.management("390", field62=b"F000000000001")) == asked.HotListDownload("F", 0, 1)
    assert read(pos, pos.management("360", field62=b"0000")) == asked.ParameterDownload(0)
    assert isinstance(read(pos, pos.management("362", "0820", b"1260")), asked.StatusUpload)


def test_transactions(both: tuple[Pos, FalseSwitch]) -> None:
    pos, switch = both
    request = pos.purchase(CARD, 1000, pin="123456", account=AccountKind.MEDICAL, entry="07")
    purchase = read(pos, request)
    assert isinstance(purchase, asked.Purchase)
    assert (purchase.account, purchase.amount_fen, purchase.entry_mode) == (AccountKind.MEDICAL, 1000, "071")
    assert (purchase.card.reveal(), purchase.expiry, purchase.card_sequence) == (CARD.pan, "3403", "001")
    assert purchase.pin is not None
    assert purchase.pin.format is (PinFormat.SM4_PAN if pos.terminal.mac_id > 3 else PinFormat.ISO_0)
    receipt = settle(pos, switch, request).receipt
    assert receipt is not None
    receipt.auth_code = "A00001"

    balance = read(pos, pos.balance(CARD))
    assert isinstance(balance, asked.Balance)
    assert balance.pin is None

    original = asked.Original(1, int(request.fields[11]), 3, 15)
    void = read(pos, pos.void(receipt))
    assert isinstance(void, asked.Void)
    assert (void.original, void.rrn, void.auth_code, void.amount_fen) == (
        original,
        receipt.rrn,
        "A00001",
        1000,
    )
    refund = read(pos, pos.refund(receipt, 300))
    assert isinstance(refund, asked.Refund)
    assert (refund.original, refund.account, refund.amount_fen) == (original, AccountKind.MEDICAL, 300)
    undone = read(pos, pos.reversal(request, "98"))
    assert isinstance(undone, asked.Reversal)
    assert (undone.original, undone.of, undone.reason) == (original, Kind.PURCHASE, "98")
    void_undone = read(pos, pos.reversal(pos.void(receipt), "96"))
    assert isinstance(void_undone, asked.Reversal)
    assert void_undone.of is Kind.VOID


def test_batch(both: tuple[Pos, FalseSwitch]) -> None:
    pos, switch = both
    for amount in range(1, 11):
        settle(pos, switch, pos.purchase(CARD, amount))
    pos.store_record(record(7))
    upload = pos.upload()
    assert upload is not None
    assert read(pos, upload) == asked.OfflineUpload((record(7),))
    settle(pos, switch, upload)
    settlement = read(pos, pos.settlement())
    assert isinstance(settlement, asked.Settlement)
    assert settlement.accounts[:2] == (55, 10)
    assert settlement.purse[:2] == (100, 1)
    details = [read(pos, request) for request in pos.details()]
    assert [len(d.details) for d in details if isinstance(d, asked.DetailUpload)] == [8, 2]
    assert read(pos, pos.batch_end(balanced=True)) == asked.BatchEnd(True, 1)
    assert read(pos, pos.batch_end(balanced=False)) == asked.BatchEnd(False, 10)
