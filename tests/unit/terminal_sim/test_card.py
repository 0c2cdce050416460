"""Purchases, loads and rides: the card's transactions, their order and status words."""

import pytest

from terminal_sim.card import LOAD, Lock
from tests.unit.terminal_sim.cards import (
    BALANCE,
    DES,
    MOMENT,
    PSAM_NO,
    SELECT,
    SM4,
    buy,
    credit,
    debit,
    initialize_load,
    initialize_purchase,
    make_card,
    selected,
    send,
)

# --- purchase and load


@pytest.mark.parametrize("index", [SM4, DES])
def test_a_purchase_takes_the_amount_counts_and_logs(index: str) -> None:
    card = selected(make_card(offline_atc=0x1234))
    answer = buy(card, 200, index)
    assert len(answer) == 2 * (8 + 2)
    assert answer.endswith("9000")
    assert (card.balance_fen, card.offline_atc, card.online_atc) == (9_800, 0x1235, 0)
    assert send(card, "00B201C417") == f"1235000000000000C806{PSAM_NO}{MOMENT}9000"
    assert send(card, "805A000602123508") == answer[8:16] + answer[:8] + "9000"
    assert send(card, "805A000602123408") == "9406"
    assert send(card, "805A000902123508") == "9406"


@pytest.mark.parametrize("index", [SM4, DES])
def test_a_load_adds_the_amount_counts_and_logs(index: str) -> None:
    card = selected(make_card())
    command = credit(card, 5_000, send(card, initialize_load(5_000, index)), index)
    answer = send(card, command)
    assert len(answer) == 2 * (4 + 2)
    assert (card.balance_fen, card.online_atc, card.offline_atc) == (15_000, 1, 0)
    assert send(card, "805A000202000108") == command[24:32].upper() + answer[:8] + "9000"
    assert send(card, "00B201C417")[18:20] == f"{LOAD:02X}"


def test_the_log_keeps_the_newest_ten() -> None:
    card = selected(make_card())
    for _ in range(12):
        assert buy(card, 1).endswith("9000")
    assert send(card, "00B201C417")[:4] == "000C"
    assert send(card, "00B20AC417")[:4] == "0003"
    assert send(card, "00B20BC417") == "6A83"


def test_wrong_mac1_changes_nothing_and_fifteen_lock_the_application_for_ever() -> None:
    card = selected(make_card())
    for count in range(1, 16):
        answer = send(card, initialize_purchase(100))
        good = debit(card, 100, answer)
        bad = good[:-10] + f"{int(good[-10:-2], 16) ^ 1:08X}" + good[-2:]
        assert send(card, bad) == "9302"
        assert (card.balance_fen, card.offline_atc) == (10_000, 0)
        if count < 15:
            assert send(card, good) == "6985"  # the transaction is gone
    assert card.lock is Lock.FOR_EVER
    assert send(card, initialize_purchase(100)) == "9303"
    assert send(card, SELECT) == "9303"


def test_a_good_debit_clears_the_failure_counter() -> None:
    card = selected(make_card())
    for _ in range(14):
        send(card, initialize_purchase(1))
        assert send(card, f"805401000F00000001{MOMENT}0000000008") == "9302"
    assert buy(card, 1).endswith("9000")
    send(card, initialize_purchase(1))
    assert send(card, f"805401000F00000001{MOMENT}0000000008") == "9302"
    assert card.lock is Lock.OPEN


def test_wrong_mac2_of_a_load_changes_nothing() -> None:
    card = selected(make_card())
    send(card, initialize_load(5_000))
    assert send(card, f"805200000B{MOMENT}0000000004") == "9302"
    assert (card.balance_fen, card.online_atc) == (10_000, 0)


@pytest.mark.parametrize(
    "between", [BALANCE, "0084000004", SELECT, "00B201C417", "FF00000000", "0070000000", "80"]
)
def test_any_other_command_drops_the_pending_transaction(between: str) -> None:
    card = selected(make_card())
    command = debit(card, 100, send(card, initialize_purchase(100)))
    answer = send(card, between)
    expected = "6985"
    if between == "80":
        assert answer == "6700"  # never became a command
        expected = "9000"
    assert send(card, command).endswith(expected)


def test_the_wrong_last_step_is_another_status_than_none() -> None:
    card = selected(make_card())
    send(card, initialize_purchase(100))
    assert send(card, f"805200000B{MOMENT}0000000004") == "6901"
    send(card, initialize_load(100))
    assert send(card, f"805401000F00000001{MOMENT}0000000008") == "6901"
    send(card, initialize_purchase(0, mode="03"))
    assert send(card, f"805401000F00000001{MOMENT}0000000008") == "6901"  # CAPP without UPDATE
    send(card, initialize_purchase(0))
    assert send(card, "80DC00F030" + "00" * 48) == "6901"


def test_leaving_the_field_drops_the_pending_transaction_but_not_the_memory() -> None:
    card = selected(make_card())
    assert buy(card, 100).endswith("9000")
    command = debit(card, 100, send(card, initialize_purchase(100)))
    card.reset()
    assert send(card, command) == "6901"
    selected(card)
    assert send(card, command) == "6985"
    assert send(card, BALANCE) == "000026AC9000"


def test_counters_at_their_maximum_stop_transactions() -> None:
    card = selected(make_card(offline_atc=0xFFFE, online_atc=0xFFFE))
    assert buy(card, 1).endswith("9000")
    assert send(card, initialize_purchase(1)) == "9402"
    command = credit(card, 1, send(card, initialize_load(1)))
    assert send(card, command).endswith("9000")
    assert send(card, initialize_load(1)) == "9402"


def test_the_maximum_balance_can_be_reached_and_not_passed() -> None:
    card = selected(make_card(balance_fen=99_000))
    assert send(card, initialize_load(1_001)) == "6985"
    assert send(card, credit(card, 1_000, send(card, initialize_load(1_000)))).endswith("9000")
    assert card.balance_fen == 100_000


def test_the_whole_balance_can_be_spent() -> None:
    card = selected(make_card(balance_fen=100))
    assert buy(card, 100).endswith("9000")
    assert send(card, initialize_purchase(1)) == "9401"
    assert buy(card, 0).endswith("9000")


def test_a_memory_error_in_the_last_step_changes_nothing() -> None:
    card = selected(make_card())
    command = debit(card, 100, send(card, initialize_purchase(100)))
    card.write_fails = True
    assert send(card, command) == "6581"
    assert (card.balance_fen, card.offline_atc) == (10_000, 0)
    assert send(card, "00B201C417") == "6A83"
    assert buy(card, 100).endswith("9000")


def test_a_grey_locked_purse_pays_nothing_but_can_be_loaded() -> None:
    card = selected(make_card())
    card.grey_locked = True
    assert send(card, initialize_purchase(1)) == "9408"
    assert send(card, initialize_load(1)).endswith("9000")


# --- CAPP


def test_debit_and_ride_records_become_effective_together() -> None:
    card = selected(make_card(capp_ids=[1, 2], offline_atc=7))
    ride = "04" + "11" * 47
    answer = send(card, initialize_purchase(300, mode="03"))
    assert send(card, "80DC00F030" + ride) == "9000"
    assert send(card, "80DC01D003A1B2C3") == "9000"
    assert send(card, "00B201F430") == "6A83"  # not yet, and this drops the transaction
    assert card.balance_fen == 10_000
    answer = send(card, initialize_purchase(300, mode="03"))
    assert send(card, "80DC00F030" + ride) == "9000"
    assert send(card, "80DC01D003A1B2C3") == "9000"
    assert send(card, debit(card, 300, answer, tti=9)).endswith("9000")
    assert send(card, "00B201F430") == ride + "9000"
    assert send(card, "00B201D403") == "A1B2C39000"
    assert (card.balance_fen, card.offline_atc) == (9_700, 8)


def test_a_failed_capp_debit_leaves_the_ride_log_alone() -> None:
    card = selected(make_card())
    send(card, initialize_purchase(300, mode="03"))
    assert send(card, "80DC00F030" + "04" * 48) == "9000"
    assert send(card, f"805401000F00000001{MOMENT}0000000008") == "9302"
    assert send(card, "00B201F430") == "6A83"


#    record of UPDATE CAPP   status
CAPP_REFUSED = """
    00F0 49                  6A84
    00F0 47                  6700
    01F0 48                  6A83
    03D0 10                  6A83
    02D0 10                  9407
    01D0 129                 6A84
    00C0 23                  6A82
    00F4 48                  6A86
"""


@pytest.mark.parametrize(
    "line", [line.split() for line in CAPP_REFUSED.strip().splitlines()], ids=lambda line: line[0]
)
def test_capp_updates_that_are_refused(line: list[str]) -> None:
    where, length, expected = line[0], int(line[1]), line[2]
    card = selected(make_card(capp_ids=[1, 2]))
    card.capp_locked = frozenset((2,))
    send(card, initialize_purchase(0, mode="03"))
    assert send(card, f"80DC{where}{length:02X}" + "00" * length) == expected


def test_the_ride_log_keeps_the_newest_thirty_and_one_transaction_caches_eight() -> None:
    card = selected(make_card())
    for count in range(31):
        answer = send(card, initialize_purchase(0, mode="03"))
        assert send(card, f"80DC00F030{count:02X}" + "00" * 47) == "9000"
        assert send(card, debit(card, 0, answer, tti=9)).endswith("9000")
    assert send(card, "00B201F430")[:2] == "1E"
    assert send(card, "00B21EF430")[:2] == "01"
    assert send(card, "00B21FF430") == "6A83"
    send(card, initialize_purchase(0, mode="03"))
    for _ in range(8):
        assert send(card, "80DC00F030" + "00" * 48) == "9000"
    assert send(card, "80DC00F030" + "00" * 48) == "6A84"
