"""Golden requests as the typed requests that they stand for."""

import pytest

from switch.domain import transactions as t
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.messages.mapping import read_request
from tests.helpers.frames import golden, message_of

CARD = CardNumber("3133500100000001239")
CARD_SM4 = CardNumber("3133500100000045673")
CARD_MEDICAL = CardNumber("3133500100000890128")
BANK_CARD = CardNumber("622848012345678900")
PIN_BLOCK = bytes.fromhex("B0C1D9AF0CB2D26E")
PIN = t.PinEntry(PIN_BLOCK, t.PinFormat.ISO_0)
ONLINE = t.AccountKind.ONLINE
ISSUER = bytes.fromhex("99993350FFFFFFFF")
PSAM = bytes.fromhex("335000000017")

GOLDEN: dict[str, t.Request] = {
    "ISO-01-SIGNON-REQ": t.SignOn("003", "JXSMK00000000001", "01"),
    "ISO-02-ECHO-REQ": t.Echo(),
    "ISO-03-BALANCE-REQ": t.Balance(CARD, ONLINE, PIN, "051"),
    "ISO-04-PURCHASE-REQ": t.Purchase(CARD, ONLINE, Fen(1403), PIN, "051", "001"),
    "ISO-05-TIMEOUT-REQ": t.Purchase(
        CARD_SM4,
        ONLINE,
        Fen(123465),
        t.PinEntry(bytes.fromhex("C8267532A88F1F5F"), t.PinFormat.ISO_0),
        "071",
        "001",
    ),
    "ISO-05-REVERSAL-REQ": t.Reversal(
        CARD_SM4, ONLINE, Fen(123465), t.Original(2, 6, 3, 15), t.Kind.PURCHASE, "98", "071", "001000"
    ),
    "ISO-06-VOID-REQ": t.Void(
        CARD, ONLINE, Fen(1403), t.Original(2, 5, 3, 15), "407508000004", "A00200", "051"
    ),
    "ISO-07-REFUND-REQ": t.Refund(CARD, ONLINE, Fen(201), t.Original(1, 5, 1, 1), "407508000004", "051"),
    "ISO-08-MEDICAL-REQ": t.Purchase(
        CARD_MEDICAL,
        t.AccountKind.MEDICAL,
        Fen(881),
        t.PinEntry(bytes.fromhex("DF8B0CD3D9BDAF11"), t.PinFormat.ISO_0),
        "051",
        "001",
        "3403",
    ),
    "ISO-09-LOAD-REQ": t.Load(
        CARD,
        t.LoadSource.BOUND_BANK,
        Fen(5000),
        PIN,
        t.PurseLoadData(
            "03133500100000001239",
            ISSUER,
            1,
            1,
            0,
            Fen(1234),
            1,
            bytes.fromhex("9D46E428"),
            bytes.fromhex("AC2098E7"),
            PSAM,
        ),
        "051",
    ),
    "ISO-09-LOADCONFIRM-REQ": t.LoadConfirm(
        CARD,
        t.LoadSource.BOUND_BANK,
        Fen(5000),
        t.Original(2, 10, 3, 15),
        "407508000009",
        t.PurseConfirmData(
            "03133500100000001239",
            1,
            PSAM,
            bytes.fromhex("20240315"),
            bytes.fromhex("081530"),
            bytes.fromhex("18998FE7"),
            Fen(6234),
            0x9000,
        ),
        "051",
    ),
    "ISO-10-LOADREV-REQ": t.Reversal(
        CARD_SM4,
        ONLINE,
        Fen(1_000_000),
        t.Original(2, 13, 3, 15),
        t.Kind.LOAD,
        "96",
        "052",
        "630000",
        t.PurseReversalData("03133500100000045673", Fen(65535), 254, 0x9302),
    ),
    "ISO-12-PREAUTH-REQ": t.PreAuthorisation(CARD, ONLINE, Fen(50000), PIN, "051"),
    "ISO-12-COMPLETE-REQ": t.Completion(
        CARD, ONLINE, Fen(43210), t.Original(2, 15, 3, 15), "P12345", "051", advice=False
    ),
    "ISO-14-SETTLE-REQ": t.Settlement(
        t.GroupTotals(Fen(44613), 2, Fen(1604), 2), t.GroupTotals(Fen(500), 3, Fen(5001), 2)
    ),
    "ISO-15-BATCHEND-REQ": t.BatchEnd(balanced=True, uploaded=3),
    "ISO-16-BLACKLIST-REQ": t.HotListDownload("F", 0, 1),
    "ISO-17-PARAM-REQ": t.ParameterDownload(0),
    "ISO-18-BADMAC-REQ": t.Purchase(CARD, ONLINE, Fen(1403), None, "052", "001"),
    "ISO-20-SM4-SIGNON-REQ": t.SignOn("005", "JXSMK00000000001", "01"),
    "ISO-20-SM4-PURCHASE-REQ": t.Purchase(
        CARD_SM4,
        ONLINE,
        Fen(1403),
        t.PinEntry(bytes.fromhex("DEBF7DD4D33216C6DD98DFA2948AAC9B"), t.PinFormat.SM4_PAN),
        "051",
        "001",
    ),
    "ISO-21-CASH-REQ": t.Refused(CARD, Fen(1403), "57", "cash withdrawal is forbidden"),
    "ISO-22-SIGNOFF-REQ": t.SignOff(),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_request_is_the_typed_request_it_stands_for(name: str) -> None:
    assert read_request(message_of(name)) == GOLDEN[name]


@pytest.mark.parametrize("name", [name for name, v in golden().items() if v["direction"] == "request"])
def test_every_golden_request_is_taken_and_shows_no_card_number(name: str) -> None:
    shown = repr(read_request(message_of(name)))
    for card in (CARD, CARD_SM4, CARD_MEDICAL, BANK_CARD):
        assert card.reveal() not in shown


def test_a_load_from_another_bank_card_carries_its_track() -> None:
    load = read_request(message_of("ISO-11-NDLOAD-REQ"))
    assert isinstance(load, t.Load)
    assert (load.card, load.source, load.amount_fen) == (BANK_CARD, t.LoadSource.OTHER_BANK, 1)
    assert (load.track2, load.expiry, load.tracks_encrypted) == (
        "622848012345678900=3012120000",
        "3012",
        False,
    )
    assert load.purse is not None
    assert load.purse.asn == "03133500100000890128"


def test_an_offline_upload_hands_over_raw_records() -> None:
    upload = read_request(message_of("ISO-13-OFFLINE-REQ"))
    assert isinstance(upload, t.OfflineUpload)
    assert [len(record) for record in upload.records] == [96, 96, 96]
    assert repr(upload) == "OfflineUpload(3 records)"
