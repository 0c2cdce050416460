"""What a terminal makes of answers: totals, receipts, reversals, uploads, batches. Without a socket."""

from typing import Any

import pytest

from switch.messages.codec import decode
from terminal_sim.crypto import MAC_ALGORITHM
from terminal_sim.frames import CardData, Terminal, Totals
from terminal_sim.pos import REVERSALS_MAX, TRACE_MAX, Pos
from terminal_sim.pos_answers import Answer, Balanced, Request, UnusableAnswerError, balance_flags
from terminal_sim.pos_batch import RECEIPTS_MAX, NotNowError
from tests.unit.terminal_sim.false_switch import TERMINAL, FalseSwitch, changed

CARD = CardData("3133500100000001239")


def record(serial: int, amount_fen: int = 100) -> bytes:
    return bytes(30) + amount_fen.to_bytes(4) + bytes(25) + serial.to_bytes(4) + bytes(33)


def settle(pos: Pos, switch: FalseSwitch, request: Request) -> Answer:
    body = switch.answer(pos.pack(request)[2:])
    assert body is not None
    return pos.take(request, body)


@pytest.fixture
def switch() -> FalseSwitch:
    return FalseSwitch()


@pytest.fixture
def pos(switch: FalseSwitch) -> Pos:
    """Signed on."""
    made = Pos(switch.terminal)
    assert settle(made, switch, made.sign_on()).approved
    return made


@pytest.mark.parametrize("mac_id", list(MAC_ALGORITHM))
def test_a_session_under_each_mac(mac_id: int) -> None:
    switch = FalseSwitch(Terminal("33500001", "993350054110001", bytes(range(16)), mac_id))
    pos = Pos(switch.terminal)
    settle(pos, switch, pos.sign_on())
    assert settle(pos, switch, pos.purchase(CARD, 5, pin="123456")).approved
    assert settle(pos, switch, pos.echo()).approved
    assert settle(pos, switch, pos.sign_off()).approved
    assert pos.pin_pad is None
    with pytest.raises(NotNowError, match="sign on"):
        pos.purchase(CARD, 5)


def test_sign_on_brings_keys_and_batch(pos: Pos) -> None:
    assert (pos.batch_no, pos.must_sign_on) == (1, False)
    assert pos.pin_pad is not None


def test_a_wrong_check_value_keeps_the_old_keys(pos: Pos, switch: FalseSwitch) -> None:
    before = pos.pin_pad
    switch.answers["0800"] = changed(f62=bytes(40))
    with pytest.raises(UnusableAnswerError, match="check value"):
        settle(pos, switch, pos.sign_on())
    assert pos.pin_pad is before


def test_totals_count_purchases_against_voids_and_refunds(pos: Pos, switch: FalseSwitch) -> None:
    first = settle(pos, switch, pos.purchase(CARD, 1000)).receipt
    second = settle(pos, switch, pos.purchase(CARD, 500)).receipt
    assert first is not None
    assert second is not None
    assert settle(pos, switch, pos.void(first)).approved
    assert settle(pos, switch, pos.refund(second, 200)).approved
    assert first.voided
    assert pos.batch.accounts == Totals(1500, 2, 1200, 2)
    request = pos.settlement()
    assert request.fields[48] == "000000001500002000000001200002" + "0" + "0" * 31


def test_a_decline_counts_nowhere_and_owes_nothing(pos: Pos, switch: FalseSwitch) -> None:
    switch.answers["0200"] = changed(f39="51")
    answer = settle(pos, switch, pos.purchase(CARD, 1000))
    assert (answer.approved, answer.receipt) == (False, None)
    assert pos.batch.accounts == Totals()
    assert not pos.reversals


#    what is wrong with the answer              reason of the reversal
UNUSABLE: list[tuple[dict[str, Any], str]] = [
    ({"f4": "000000000999"}, "96"),
    ({"f3": "001000"}, "usable"),
    ({"f3": "004000"}, "96"),
    ({"f11": "000099"}, "96"),
    ({"f41": "33500009"}, "96"),
    ({"f39": None}, "96"),
    ({"f37": None}, "96"),
    ({"f13": None}, "96"),
]


@pytest.mark.parametrize(("changes", "reason"), UNUSABLE)
def test_an_unusable_answer_settles_nothing(
    pos: Pos, switch: FalseSwitch, changes: dict[str, Any], reason: str
) -> None:
    switch.answers["0200"] = changed(**changes)
    request = pos.purchase(CARD, 1000)
    if reason == "usable":
        assert settle(pos, switch, request).approved
        return
    with pytest.raises(UnusableAnswerError) as caught:
        settle(pos, switch, request)
    assert caught.value.reason == reason
    assert pos.batch.accounts == Totals()
    owed = pos.give_up(request, reason)
    assert owed is not None
    assert owed.fields[39] == reason


@pytest.mark.parametrize("body", [b"", b"\x60", bytes(40), b"\x60" + b"\xff" * 60])
def test_noise_is_an_unusable_answer(pos: Pos, body: bytes) -> None:
    with pytest.raises(UnusableAnswerError):
        pos.take(pos.purchase(CARD, 1), body)


def test_a_wrong_mac_is_reversed_for_that_reason_and_asks_for_new_keys(pos: Pos, switch: FalseSwitch) -> None:
    switch.spoil_mac = True
    request = pos.purchase(CARD, 1000)
    with pytest.raises(UnusableAnswerError) as caught:
        settle(pos, switch, request)
    pos.give_up(request, caught.value.reason)
    assert pos.must_sign_on
    switch.spoil_mac = False
    settle(pos, switch, pos.sign_on())
    assert settle(pos, switch, pos.reversals[0]).approved
    assert switch.seen("0400")[0].fields[39] == "A0"
    assert not pos.reversals


def test_an_approval_without_a_mac_is_not_believed_but_a_refusal_for_want_of_keys_is(
    pos: Pos, switch: FalseSwitch
) -> None:
    switch.answers["0200"] = changed(f0=True)
    request = pos.purchase(CARD, 1000)
    with pytest.raises(UnusableAnswerError, match="missing"):
        settle(pos, switch, request)
    switch.answers["0200"] = changed(f0=True, f39="77")
    assert settle(pos, switch, pos.purchase(CARD, 1000)).code == "77"
    assert pos.must_sign_on


def test_the_header_of_an_answer_can_ask_to_sign_on_again(pos: Pos, switch: FalseSwitch) -> None:
    switch.processing = 3
    assert settle(pos, switch, pos.purchase(CARD, 1)).processing == 3
    assert pos.must_sign_on


@pytest.mark.parametrize(
    ("code", "finished"), [("00", True), ("12", True), ("25", True), ("96", False), ("A0", False)]
)
def test_a_reversal_is_owed_until_a_final_answer(
    pos: Pos, switch: FalseSwitch, code: str, *, finished: bool
) -> None:
    switch.answers["0400"] = changed(f39=code)
    request = pos.purchase(CARD, 1000)
    owed = pos.give_up(request)
    assert owed is not None
    with pytest.raises(NotNowError, match="reversal"):
        pos.purchase(CARD, 1)
    settle(pos, switch, owed)
    assert bool(pos.reversals) is not finished


def test_a_reversal_repeats_its_original_and_names_it(pos: Pos) -> None:
    request = pos.purchase(CARD, 1000, pin="123456")
    owed = pos.give_up(request)
    assert owed is not None
    for number in (2, 3, 4, 11, 22, 23, 25, 41, 42, 49, 60):
        assert owed.fields[number] == request.fields[number]
    assert not owed.fields.keys() & {26, 52, 53, 55, 37}
    assert owed.fields[61][:12] == "000001" + request.fields[11]


def test_reversing_an_approved_purchase_takes_it_out_of_the_totals(pos: Pos, switch: FalseSwitch) -> None:
    request = pos.purchase(CARD, 1000)
    settle(pos, switch, request)
    settle(pos, switch, pos.purchase(CARD, 70))
    assert settle(pos, switch, pos.reversal(request, "06")).approved
    assert pos.batch.accounts == Totals(70, 1)


def test_reversals_owed_are_bounded(pos: Pos) -> None:
    requests = [pos.purchase(CARD, 1) for _ in range(REVERSALS_MAX + 1)]
    for request in requests[:-1]:
        pos.give_up(request)
    with pytest.raises(NotNowError, match="too many"):
        pos.give_up(requests[-1])


def test_balance_and_refund_owe_no_reversal(pos: Pos, switch: FalseSwitch) -> None:
    assert pos.give_up(pos.balance(CARD)) is None
    receipt = settle(pos, switch, pos.purchase(CARD, 100)).receipt
    assert receipt is not None
    assert pos.give_up(pos.refund(receipt, 50)) is None


def test_the_same_request_packs_to_other_macs_under_other_keys(pos: Pos, switch: FalseSwitch) -> None:
    request = pos.purchase(CARD, 1000)
    before = pos.pack(request)
    settle(pos, switch, pos.sign_on())
    after = pos.pack(request)
    assert before[:-8] == after[:-8]
    assert before[-8:] != after[-8:]


# --- uploads


def test_an_upload_is_the_same_bytes_until_it_is_answered(pos: Pos, switch: FalseSwitch) -> None:
    for serial in range(7):
        pos.store_record(record(serial))
    first = pos.upload()
    assert first is not None
    pos.store_record(record(7))
    assert pos.upload() is first
    assert decode(pos.pack(first)[2:]).fields[62][:1] == b"\x05"
    settle(pos, switch, first)
    second = pos.upload()
    assert second is not None
    assert second.key != first.key
    assert decode(pos.pack(second)[2:]).fields[62][:1] == b"\x03"
    settle(pos, switch, second)
    assert pos.upload() is None
    assert pos.results() == dict.fromkeys(range(8), "10")


def test_only_records_first_taken_count(pos: Pos, switch: FalseSwitch) -> None:
    results = ["10", "04", "11", "03", "02"]

    def answer(message: Any, fields: dict[int, Any]) -> dict[int, Any]:
        sent = message.fields[62]
        serials = [sent[at + 59 : at + 63] for at in range(1, len(sent), 96)]
        return fields | {
            62: sent[:1] + b"".join(s + r.encode() for s, r in zip(serials, results, strict=True))
        }

    switch.answers["0320/203"] = answer
    for serial in range(5):
        pos.store_record(record(serial, 10**serial))
    request = pos.upload()
    assert request is not None
    settle(pos, switch, request)
    assert pos.batch.purse == Totals(111, 3)
    assert list(pos.results().values()) == results


@pytest.mark.parametrize(
    "field62", [b"", b"\x01", b"\x0100000010", b"\x02" + bytes(4) + b"10", b"\x01" + bytes(4) + b"1"]
)
def test_results_that_do_not_fit_the_records_are_no_answer(
    pos: Pos, switch: FalseSwitch, field62: bytes
) -> None:
    pos.store_record(record(0))
    switch.answers["0320/203"] = changed(f62=field62)
    request = pos.upload()
    assert request is not None
    with pytest.raises(UnusableAnswerError, match="62"):
        settle(pos, switch, request)
    assert len(pos.batch.unsent) == 1
    assert pos.upload() is request


@pytest.mark.parametrize(
    ("code", "same"), [("96", True), ("A0", True), ("77", False), ("94", False), ("30", False)]
)
def test_a_refused_upload_keeps_its_records(pos: Pos, switch: FalseSwitch, code: str, *, same: bool) -> None:
    pos.store_record(record(0))
    switch.answers["0320/203"] = changed(f39=code, f62=None)
    request = pos.upload()
    assert request is not None
    settle(pos, switch, request)
    assert len(pos.batch.unsent) == 1
    assert (pos.upload() is request) is same


def test_a_record_has_96_bytes(pos: Pos) -> None:
    with pytest.raises(ValueError, match="96"):
        pos.store_record(bytes(95))


# --- settlement


def test_settlement_waits_for_records_and_reversals(pos: Pos) -> None:
    pos.store_record(record(0))
    with pytest.raises(NotNowError):
        pos.settlement()


def test_a_closed_batch_is_forgotten_and_a_new_one_comes_with_the_next_sign_on(
    pos: Pos, switch: FalseSwitch
) -> None:
    settle(pos, switch, pos.purchase(CARD, 100))
    answer = settle(pos, switch, pos.settlement())
    assert balance_flags(answer) == (Balanced.YES, Balanced.YES)
    assert settle(pos, switch, pos.batch_end(balanced=True)).approved
    assert pos.must_sign_on
    settle(pos, switch, pos.sign_on())
    assert (pos.batch_no, pos.batch.accounts, pos.batch.receipts) == (2, Totals(), [])


def test_records_that_were_not_answered_outlive_the_batch(pos: Pos, switch: FalseSwitch) -> None:
    pos.store_record(record(0))
    request = pos.upload()
    assert request is not None
    switch.batch_no = 5
    settle(pos, switch, pos.sign_on())
    again = pos.upload()
    assert again is not None
    assert again.fields[60] == "00000005203"
    assert again.fields[62] == request.fields[62]


def test_details_go_eight_to_a_message_and_the_batch_end_counts_them(pos: Pos, switch: FalseSwitch) -> None:
    for amount in range(1, 11):
        settle(pos, switch, pos.purchase(CARD, amount))
    pos.store_record(record(0))
    upload = pos.upload()
    assert upload is not None
    settle(pos, switch, upload)
    details = pos.details()
    assert [request.fields[48][:2] for request in details] == ["08", "02"]
    assert pos.batch_end(balanced=True).fields[48] == "0001"
    assert pos.batch_end(balanced=False).fields[48] == "0010"
    assert pos.batch_end(balanced=False, records_in_doubt=True).fields[48] == "0011"
    again = pos.records_again()
    assert [request.fields[62] for request in again] == [upload.fields[62]]
    before = pos.batch.purse
    settle(pos, switch, again[0])
    assert pos.batch.purse == before


@pytest.mark.parametrize("field48", ["", "0" * 62, "0" * 30 + "4" + "0" * 30 + "1"])
def test_flags_that_are_no_flags(pos: Pos, switch: FalseSwitch, field48: str) -> None:
    switch.answers["0500"] = changed(f48=field48)
    with pytest.raises(UnusableAnswerError, match="48"):
        balance_flags(settle(pos, switch, pos.settlement()))


# --- bounds


def test_traces_run_to_999999_and_start_again() -> None:
    pos = Pos(TERMINAL, next_trace=TRACE_MAX)
    assert [pos.next_trace(), pos.next_trace()] == [TRACE_MAX, 1]


def test_a_full_receipt_memory_must_be_settled_first(pos: Pos, switch: FalseSwitch) -> None:
    receipt = settle(pos, switch, pos.purchase(CARD, 1)).receipt
    assert receipt is not None
    pos.batch.receipts.extend([receipt] * (RECEIPTS_MAX - 1))
    with pytest.raises(NotNowError, match="full"):
        pos.purchase(CARD, 1)
