"""The card's state machine and status words."""

from datetime import date

import pytest

from terminal_sim import crypto
from terminal_sim.card import LOAD, PURCHASE, Lock, PurseCard
from terminal_sim.crypto import Algorithm, KeyKind
from terminal_sim.personalisation import CardProfile
from tests.unit.terminal_sim.cards import (
    ASN,
    ISSUER,
    ISSUER_ID,
    PSAM_NO,
    SELECT,
    fixed_random,
    make_card,
    make_psam,
    selected,
    send,
)

MOMENT = "20240315081530"
BALANCE = "805C000204"
SM4, DES = "41", "01"


def initialize_purchase(amount_fen: int, index: str = SM4, mode: str = "01") -> str:
    return f"8050{mode}020B{index}{amount_fen:08X}{PSAM_NO}0F"


def initialize_load(amount_fen: int, index: str = SM4) -> str:
    return f"805000020B{index}{amount_fen:08X}{PSAM_NO}10"


def debit(card: PurseCard, amount_fen: int, answer: str, tti: int = PURCHASE) -> str:
    """INIT SAM and the DEBIT command it leads to, for an INITIALIZE answer."""
    psam = make_psam()
    random, atc, version_algorithm = answer[22:30], answer[8:12], answer[18:22]
    data = f"{random}{atc}{amount_fen:08X}{tti:02X}{MOMENT}{version_algorithm}{ASN[-16:]}{ISSUER_ID.hex()}"
    made = send(psam, "8070000024" + data + "08")
    assert made.endswith("9000")
    return f"805401000F{made[:8]}{MOMENT}{made[8:16]}08"


def buy(card: PurseCard, amount_fen: int, index: str = SM4) -> str:
    return send(card, debit(card, amount_fen, send(card, initialize_purchase(amount_fen, index))))


def credit(card: PurseCard, amount_fen: int, answer: str, index: str = SM4) -> str:
    """The CREDIT command that the switch would allow."""
    own = next(s for s in ISSUER.card_keys(ASN) if s.key_index == int(index, 16))
    seed = crypto.load_seed(bytes.fromhex(answer[16:24]), int(answer[8:12], 16))
    key = crypto.session_key(own.algorithm, own.keys[KeyKind.LOAD], seed)
    data = bytes.fromhex(f"{amount_fen:08X}02{PSAM_NO}{MOMENT}")
    return f"805200000B{MOMENT}{crypto.purse_mac(own.algorithm, key, data).hex()}04"


def maintain(card: PurseCard, header: str, data: str = "", *, spoil: bool = False) -> str:
    """GET CHALLENGE and a command under secure messaging with the card's own DAMK."""
    challenge = bytes.fromhex(send(card, "0084000004")[:8])
    own = ISSUER.card_keys(ASN)[0]
    full = bytes.fromhex(header) + bytes((len(data) // 2 + 4,))
    mac = crypto.secure_messaging_mac(
        own.algorithm, own.keys[KeyKind.MAINTENANCE], challenge, full, bytes.fromhex(data)
    )
    if spoil:
        mac = crypto.inverted(mac)
    return send(card, full + bytes.fromhex(data) + mac)


# --- selection and files


def test_both_names_select_the_purse_and_the_template_carries_the_public_file() -> None:
    card = make_card()
    for aid in ("A000000632010105", "A00000000386980701"):
        answer = send(card, f"00A40400{len(aid) // 2:02X}{aid}00")
        public = card.profile.files()[0x15].hex().upper()
        inner = f"84{len(aid) // 2:02X}{aid}A5259F0801029F0C1E{public}"
        assert answer == f"6F{len(inner) // 2:02X}{inner}9000"
    assert send(card, "00A4040005A00000000300") == "6A82"
    assert send(card, "00A4000002DF0100") == "6A86"


def test_nothing_but_select_and_challenge_works_before_select() -> None:
    card = make_card()
    assert send(card, BALANCE) == "6901"
    assert send(card, "0084000008").endswith("9000")


def test_the_public_files_are_readable_and_the_holder_file_needs_authentication() -> None:
    card = selected(make_card())
    assert send(card, "00B095001E") == card.profile.files()[0x15].hex().upper() + "9000"
    assert send(card, "00B0950A0A") == ASN + "9000"
    assert len(send(card, "00B0970000")) == 2 * (60 + 2)
    assert send(card, "00B0960037") == "6982"
    own = ISSUER.card_keys(ASN)[0]
    challenge = bytes.fromhex(send(card, "0084000008")[:16])
    cryptogram = crypto.authentication_cryptogram(own.algorithm, own.keys[KeyKind.EXTERNAL], challenge)
    assert send(card, f"0082004110{cryptogram.hex()}") == "9000"
    assert len(send(card, "00B0960037")) == 2 * (55 + 2)
    send(card, SELECT)
    assert send(card, "00B0960037") == "6982"  # selecting again ends it


def test_external_authentication_uses_a_challenge_once_and_counts_failures() -> None:
    card = selected(make_card())
    assert send(card, "0082004110" + "00" * 16) == "6985"  # no challenge
    send(card, "0084000008")
    assert send(card, "0082004110" + "00" * 16) == "63CE"
    assert send(card, "0082004110" + "00" * 16) == "6985"  # it is spent
    for left in range(13, -1, -1):
        send(card, "0084000008")
        assert send(card, "0082004110" + "00" * 16) == f"63C{left:X}"
    send(card, "0084000008")
    assert send(card, "0082004110" + "00" * 16) == "6983"
    assert send(card, "0082000108" + "00" * 8) == "6983"
    assert send(card, "0082004210" + "00" * 16) == "9403"


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_internal_authentication(algorithm: Algorithm) -> None:
    card = selected(make_card())
    own = next(s for s in ISSUER.card_keys(ASN) if s.algorithm is algorithm)
    challenge = bytes(range(8))
    expected = crypto.authentication_cryptogram(algorithm, own.keys[KeyKind.INTERNAL], challenge)
    answer = send(card, f"008800{own.key_index:02X}08{challenge.hex()}00")
    assert answer == expected.hex().upper() + "9000"


#    command                      status word
REFUSED = """
    00B09500                      61.. no Le: data waits
    00B0950000FF                  6700 Lc 0 with more behind
    00B015001E                    6A86 no short file id
    00B099001E                    6A82 no such file
    00B0951E01                    6A86 behind the end
    00B201C417                    6A83 empty log
    00B201BC00                    6A82 no such file
    00B201C017                    6A86 P2
    0084000003                    6700 challenge of three bytes
    0084000104                    6A86 P2
    0020000001AA                  6700 PIN too short
    0020010003123456              6A86 P1
    805C000104                    6A81 deposit book
    805C010204                    6A86 P1
    805001010B0100000001335000000017    6A81 deposit book
    805005020B0100000001335000000017    6A81 unload
    805009020B0100000001335000000017    6A86 P1
    805001020A01000000013350000000      6700 Lc
    805001020B0700000001335000000017    9403 key index
    805001020B4100002711335000000017    9401 balance
    805000020B41000F4240335000000017    6985 balance would exceed the maximum
    805A0005020001                6A81 deposit-book purchase
    805A0008020001                6A86 TTI
    805A0006020001                9406 nothing to prove
    805A00060101                  6700 Lc
    80DC00F030                    6985 no data, no transaction
    8054010000                    6985 DEBIT without INITIALIZE
    8052000000                    6985 CREDIT without INITIALIZE
    80DC00F001FF                  6985 UPDATE CAPP without INITIALIZE
    0070000000                    6D00 instruction
    9050010200                    6E00 class
    005C000204                    6E00 wrong class for the instruction
    80A40400                      6E00 wrong class for the instruction
    84                            6700 too short
    841E020004AABBCCDD            6A86 P1
    841E000004AABBCCDD            6985 no challenge
"""


@pytest.mark.parametrize(
    "line", [line.split() for line in REFUSED.strip().splitlines()], ids=lambda line: line[0]
)
def test_status_words(line: list[str]) -> None:
    card = selected(make_card())
    command, expected = line[0], line[1]
    answer = send(card, command)
    assert answer[: len(expected.rstrip("."))] == expected.rstrip(".")


# --- transport


def test_data_that_was_not_asked_for_waits_for_get_response() -> None:
    card = selected(make_card())
    assert send(card, "805C0002") == "6104"
    assert send(card, "00C0000004") == "000027109000"
    assert send(card, "00C0000004") == "6D00"  # nothing waits any more
    assert send(card, "805C000201") == "006103"
    assert send(card, "00C0000003") == "0027109000"


def test_other_commands_throw_waiting_data_away() -> None:
    card = selected(make_card())
    assert send(card, "805C0002") == "6104"
    assert send(card, "805C000204") == "000027109000"
    assert send(card, "00C0000004") == "6D00"


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


# --- PIN


def test_three_wrong_pins_block_and_a_reload_opens_again() -> None:
    card = selected(make_card())
    assert send(card, "0020000003123456") == "9000"
    assert send(card, "0020000003654321") == "63C2"
    assert send(card, "0020000003123456") == "9000"  # a right one clears the counter
    for expected in ("63C2", "63C1", "63C0", "6983"):
        assert send(card, "0020000003654321") == expected
    own = ISSUER.card_keys(ASN)[0]
    mac = crypto.tac(own.algorithm, own.keys[KeyKind.RELOAD_PIN], bytes.fromhex("111222"))
    assert send(card, f"805E00000711122200000000{''}") == "9302"
    assert send(card, f"805E000007111222{mac.hex()}") == "9000"
    assert send(card, "0020000003111222") == "9000"


def test_a_pin_is_changed_by_who_knows_it() -> None:
    card = selected(make_card(pin="12345"))
    assert send(card, "002000000312345F") == "9000"
    assert send(card, "805E010006000000FF4321") == "63C2"
    assert send(card, "805E01000612345FFF4321") == "9000"
    assert send(card, "00200000024321") == "9000"
    assert send(card, "805E0100054321FFAB12") == "6A80"  # not digits
    assert send(card, "805E0100044321FF12") == "6700"  # one byte is no PIN
    assert send(card, "805E0100024321") == "6A80"  # no separator
    assert send(card, "805E020005") == "6A86"


def test_a_card_without_pin_cannot_verify_one() -> None:
    assert send(selected(make_card(pin=None)), "0020000003123456") == "6985"


# --- locks


def test_application_block_and_unblock() -> None:
    card = selected(make_card())
    assert maintain(card, "841E0000") == "9000"
    assert card.lock is Lock.TEMPORARY
    assert send(card, initialize_purchase(1)) == "6A81"
    assert send(card, "0020000003123456") == "6A81"
    assert send(card, BALANCE).endswith("9000")
    answer = send(card, SELECT)
    assert answer.startswith("6F")
    assert answer.endswith("6283")
    assert maintain(card, "84180000") == "9000"
    assert buy(card, 1).endswith("9000")
    assert maintain(card, "84180000") == "6985"  # nothing to unblock


def test_a_permanent_block_cannot_be_undone() -> None:
    card = selected(make_card())
    assert maintain(card, "841E0100") == "9000"
    assert send(card, BALANCE) == "9303"
    assert maintain(card, "84180000") == "9303"


def test_card_block_silences_everything() -> None:
    card = selected(make_card())
    assert maintain(card, "84160000") == "9000"
    for command in (SELECT, BALANCE, "0084000004", initialize_purchase(1)):
        assert send(card, command) == "6A81"


def test_three_wrong_maintenance_macs_in_a_row_lock_and_three_more_lock_for_ever() -> None:
    card = selected(make_card())
    assert maintain(card, "841E0000", spoil=True) == "6988"
    assert maintain(card, "841E0000", spoil=True) == "6988"
    assert maintain(card, "04D69510", "FFFE") == "9000"  # a right one in between
    for _ in range(3):
        assert card.lock is Lock.OPEN
        assert maintain(card, "04D69510", "FFFE", spoil=True) == "6988"
    assert send(card, "0020000003123456") == "6A81"
    for _ in range(3):
        assert maintain(card, "84180000", spoil=True) == "6988"
    assert card.lock is Lock.FOR_EVER


def test_update_binary_writes_in_place_and_never_beyond_the_file() -> None:
    card = selected(make_card())
    before = card.profile.files()[0x17].hex().upper()
    assert maintain(card, "04D6970B", "A1B2") == "9000"
    assert send(card, "00B097003C") == before[:22] + "A1B2" + before[26:] + "9000"
    assert maintain(card, "04D6973B", "A1B2") == "6A86"
    assert maintain(card, "04D69900", "A1B2") == "6A82"
    challenge = send(card, "0084000008")
    assert challenge.endswith("9000")
    assert send(card, "04D6970B06A1B200000000") == "6985"  # eight bytes are no challenge for a MAC


def test_a_challenge_serves_the_very_next_command_only() -> None:
    card = selected(make_card(random=fixed_random(b"\x01\x02\x03\x04")))
    own = ISSUER.card_keys(ASN)[0]
    header = bytes.fromhex("841E000004")
    mac = crypto.secure_messaging_mac(own.algorithm, own.keys[KeyKind.MAINTENANCE], b"\1\2\3\4", header, b"")
    assert send(card, "0084000004") == "010203049000"
    send(card, BALANCE)
    assert send(card, header + mac) == "6985"


# --- making


def test_profiles_check_themselves_and_hide_the_asn() -> None:
    with pytest.raises(ValueError, match="20 digits"):
        CardProfile("123", ISSUER_ID)
    with pytest.raises(ValueError, match="8 bytes"):
        CardProfile(ASN, b"")
    card = make_card()
    assert ASN not in repr(card)
    assert ASN[1:] not in repr(ISSUER.card_keys(ASN))


def test_the_files_say_what_the_profile_says() -> None:
    profile = CardProfile(
        ASN,
        ISSUER_ID,
        valid_from=date(2024, 1, 2),
        valid_to=date(2034, 1, 1),
        holder_name="張三",
        document_number="12X",
    )
    files = profile.files()
    assert files[0x15].hex().upper() == f"{ISSUER_ID.hex().upper()}0201{ASN}20240102203401010000"
    assert files[0x16][2:22] == "張三".encode("gbk").ljust(20)
    assert files[0x17][:12].hex() == "00000156" + "3300" + "3350" + "0001" + "01" + "00"
