"""What the vault says about loads, held against the golden frames: MAC1, MAC2, TAC and the whole answers."""

from datetime import date, datetime

import pytest

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Outcome
from switch.domain.transactions import LoadConfirm, Purchase
from switch.keys.ceremony import Custodian
from switch.keys.primitives import Algorithm
from switch.keys.software_vault import SoftwareVault
from switch.ledger.load_states import Held, Loading, LoadState, PurseLoad, Reason
from switch.messages.answers import build_answer
from switch.messages.mapping import read_request
from switch.messages.message import Message
from switch.registry.terminals import TerminalEntry
from switch.routing.card_proofs import loading_of
from tests.helpers.frames import changed, message_of
from tests.unit.keys.helpers import OPERATORS, root_spec, split, vector_roots, vector_vault

AT = datetime(2024, 3, 15, 8, 15, 30, tzinfo=SHANGHAI)
ENTRY = TerminalEntry(
    1, "33500001", 1, "993350054110001", "99993350", 1, True, True, 2, None, 1, (), cash_loads=True
)
GOLDEN = {
    "ISO-09-LOAD": ("407508000009", "L00001"),
    "ISO-10-CASHLOAD": ("407508000011", "L00002"),
    "ISO-11-NDLOAD": ("407508000012", "L00003"),
}


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> SoftwareVault:
    """With the roots of the vector file; the SM4 purse of the frames has keys of version 2."""
    made, store = vector_vault(tmp_path_factory.mktemp("vault"))
    for kind in ("DLK", "DTK"):
        root = vector_roots()[kind, Algorithm.SM4]
        Custodian(made, store).enter(root_spec(kind, Algorithm.SM4, 2), split(root), OPERATORS)
    return made


def loading(vault: SoftwareVault, message: Message) -> Loading:
    request = read_request(message)
    found = loading_of(vault, request, ENTRY)  # type: ignore[arg-type]  # a card request
    assert found is not None
    return found


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_loads_are_proven_and_answered_to_the_byte(vault: SoftwareVault, name: str) -> None:
    request, golden = message_of(f"{name}-REQ"), message_of(f"{name}-RSP")
    found = loading(vault, request)
    assert (found.card_proven, found.takes_cash, found.agent) == (True, True, 99993350)
    field55 = found.credit(AT)
    assert field55 == golden.fields[55]
    rrn, code = GOLDEN[name]
    outcome = Outcome("00", rrn, AT, date(2024, 3, 15), code, field55=field55)
    assert build_answer(request, outcome, acquirer="49993350")[1] == golden.mab


def test_the_golden_bad_mac1_another_version_and_another_amount_are_not_proven(vault: SoftwareVault) -> None:
    field55 = message_of("ISO-09-LOAD-REQ").fields[55]
    version_9 = field55.replace(b"\xdf\x15\x02\x01\x00", b"\xdf\x15\x02\x09\x00")
    for message in (
        message_of("ISO-09-LOADBADMAC1-REQ"),
        changed("ISO-09-LOAD-REQ", {55: version_9}),
        changed("ISO-09-LOAD-REQ", {4: "000000005001"}),
        changed("ISO-09-LOAD-REQ", {4: "999999999999"}),  # no card can count so far
    ):
        found = loading(vault, message)
        assert (found.card_proven, found.credit(AT)) == (False, None)


def test_the_golden_tac_is_that_of_its_load_and_of_no_other(vault: SoftwareVault) -> None:
    message = message_of("ISO-09-LOADCONFIRM-REQ")
    request = read_request(message)
    assert isinstance(request, LoadConfirm)
    load = PurseLoad(
        1,
        AT.date(),
        1,
        1,
        "335000000017",
        bytes.fromhex("99993350FFFFFFFF"),
        1,
        0,
        1,
        bytes.fromhex("9D46E428"),
        5_000,
        1_234,
        AT,
        1,
        1101,
        1,
        LoadState.AUTHORISED,
        Reason.REQUEST,
        Held.FLOAT,
    )
    found = loading(vault, message)
    assert found.tac_holds(load)
    load.balance_before_fen += 1
    assert not found.tac_holds(load)
    load.balance_before_fen -= 1
    load.authorised_at = AT.replace(second=31)
    assert not found.tac_holds(load)
    load.authorised_at, load.key_version = AT, 9
    assert not found.tac_holds(load)


def test_the_golden_confirm_and_reversal_are_answered_to_the_byte() -> None:
    for name, rrn in (("ISO-09-LOADCONFIRM", "407508000009"), ("ISO-10-LOADREV", "407508000011")):
        request, golden = message_of(f"{name}-REQ"), message_of(f"{name}-RSP")
        mab = build_answer(request, Outcome("00", rrn, AT), acquirer="49993350")[1]
        assert mab == golden.mab


def test_what_is_no_load_brings_nothing(vault: SoftwareVault) -> None:
    request = read_request(message_of("ISO-04-PURCHASE-REQ"))
    assert isinstance(request, Purchase)
    assert loading_of(vault, request, ENTRY) is None
