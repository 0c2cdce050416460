"""A terminal made from the documents alone signs on and pays: every MAC, with and without PIN, and each reason for a no."""

from dataclasses import replace

import pytest

from tests.scenarios.foreign_city import ACQUIRER_CODE, CLOSED_SHOP, PIN, ForeignCity, pan
from tests.scenarios.foreign_client import Terminal, spoilt, with_fields
from tests.scenarios.foreign_codec import unpack

pytestmark = pytest.mark.server


def signed_on(city: ForeignCity, number: int) -> Terminal:
    """A terminal of the shop after its sign-on; the last digit of its number is its MAC id."""
    terminal = city.terminal(number, mac_id=number % 10)
    assert terminal.sign_on().code == "00"
    return terminal


def available_fen(terminal: Terminal, card: str, pin: str | None = None) -> int:
    """The available balance by a balance inquiry."""
    runs = terminal.ask(terminal.balance(card, pin)).text(54)
    assert len(runs) == 40
    assert (runs[:8], runs[20:28]) == ("1001156C", "1002156C")
    return int(runs[28:40])


# ------------------------------------------------------------------------------------------------ sessions


@pytest.mark.parametrize("mac_id", [1, 2, 3, 4, 5])
def test_each_mac_algorithm_serves_a_day(foreign_city: ForeignCity, mac_id: int) -> None:
    terminal = foreign_city.terminal(mac_id, mac_id=mac_id)
    answer = terminal.sign_on()
    assert answer.code == "00"
    assert answer.numbers == {11, 12, 13, 32, 37, 39, 41, 42, 60, 62}
    assert answer.text(32) == ACQUIRER_CODE
    assert terminal.ask(terminal.echo()).numbers == {12, 13, 32, 37, 39, 41, 42, 60}
    card = pan(20 + mac_id)
    before_fen = available_fen(terminal, card, PIN)
    assert terminal.ask(terminal.purchase(card, 1403, PIN)).code == "00"
    assert available_fen(terminal, card, PIN) == before_fen - 1403
    assert terminal.ask(spoilt(terminal.purchase(card, 1403, PIN))).code == "A0"
    assert terminal.ask(terminal.sign_off()).code == "00"
    after = terminal.ask(terminal.purchase(card, 1403, PIN))
    assert (after.code, after.header[5]) == ("77", "3")


def test_a_track_key_comes_with_the_longer_sign_on(foreign_city: ForeignCity) -> None:
    for number, code in ((11, "004"), (15, "006")):
        terminal = foreign_city.terminal(number, mac_id=number % 10)
        assert terminal.sign_on(code).code == "00"
        assert terminal.keys is not None
        assert len(terminal.keys.tdk or b"") == 16
    terminal = foreign_city.terminal(11, mac_id=1)
    assert terminal.sign_on("001").code == "00"
    assert terminal.sign_on("005").code == "58"  # the terminal's MAC wants 3DES keys


def test_who_is_not_registered_hears_it_at_sign_on(foreign_city: ForeignCity) -> None:
    nobody = foreign_city.terminal(701)
    assert nobody.sign_on().code == "97"
    assert foreign_city.terminal(991).sign_on().code == "97"
    assert foreign_city.terminal(981, merchant=CLOSED_SHOP).sign_on().code == "03"
    assert foreign_city.terminal(971, merchant="888858054119999").sign_on().code == "03"
    assert foreign_city.terminal(121).sign_on().code == "97"  # a terminal of another merchant


def test_the_old_keys_serve_until_the_new_ones_are_used(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 21)
    old = replace(terminal)
    terminal.sign_on()
    assert old.ask(old.purchase(pan(2), 100)).code == "00"
    terminal.next_trace()
    assert terminal.ask(terminal.purchase(pan(2), 100)).code == "00"
    body = old.send(old.purchase(pan(2), 100))
    assert body is not None
    refused = unpack(body)
    assert (refused.code, refused.header[5]) == ("A0", "3")


# ------------------------------------------------------------------------------------------------ purchases

#   card  amount  account  PIN       answer
PURCHASES = """
      1      100  10       -         00
      1      100  00       -         00
      1  1000001  10       -         51
     26      100  10       -         55
     26      100  10       135790    00
     26      100  10       1357901   55
     31      100  10       -         54
     32      100  10       -         41
     33      100  10       -         62
     34      100  10       -         21
     35       50  40       -         00
     35     5001  40       -         51
     35       51  10       -         51
    999      100  10       -         14
      1        0  10       -         13
      1      100  20       -         57
     36      100  10       -         57
      1      100  40       -         57
      1      100  50       -         40
      1      100  30       -         40
"""


@pytest.mark.parametrize("row", PURCHASES.strip().splitlines())
def test_purchases_as_a_table(foreign_city: ForeignCity, row: str) -> None:
    serial, amount, account, pin, expected = row.split()
    terminal = signed_on(foreign_city, 31)
    answer = terminal.ask(
        terminal.purchase(pan(int(serial)), int(amount), None if pin == "-" else pin, account=account)
    )
    assert answer.code == expected
    fields = {2, 3, 4, 11, 12, 13, 25, 32, 37, 39, 41, 42, 49, 60, 64} | (
        {15, 38} if expected == "00" else set()
    )
    assert answer.numbers - {44} == fields


def test_what_no_row_can_say_about_purchases(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 31)

    def code(**changes: str) -> str:
        frame = terminal.purchase(pan(1), 100)
        return terminal.ask(
            with_fields(frame, terminal, {int(name[1:]): value for name, value in changes.items()})
        ).code

    assert code(f2=pan(1)[:-1] + str((int(pan(1)[-1]) + 1) % 10)) == "14"  # wrong check digit
    assert code(f3="011000") == "57"  # cash withdrawal
    assert code(f3="211000") == "40"
    assert code(f3="991000") == "40"
    assert code(f25="91") == "30"
    assert code(f49="840") == "30"
    assert code(f60=f"36{terminal.batch}00050") == "40"


def test_six_wrong_pins_block_the_account(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 31)
    card = pan(27)
    assert [terminal.ask(terminal.purchase(card, 100, "000000")).code for _ in range(6)] == ["55"] * 6
    assert terminal.ask(terminal.purchase(card, 100, PIN)).code == "75"
    broken = with_fields(terminal.purchase(pan(28), 100, PIN), terminal, {52: bytes(8)})
    assert terminal.ask(broken).code == "99"


def test_a_pin_block_without_the_card_number_is_taken(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 31)
    assert terminal.ask(terminal.purchase(pan(29), 100, PIN, with_pan=False)).code == "00"


def test_training_is_answered_and_never_booked(foreign_city: ForeignCity) -> None:
    terminal = signed_on(foreign_city, 41)
    before_fen = available_fen(terminal, pan(3))
    trainee = replace(terminal, header="613110310001")
    answer = trainee.ask(trainee.purchase(pan(3), 500))
    assert (answer.code, answer.header) == ("00", "613110310001")
    assert available_fen(terminal, pan(3)) == before_fen
