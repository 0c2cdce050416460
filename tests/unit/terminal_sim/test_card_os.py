"""Files, PIN, authentication, maintenance and locks of the card, and its status words."""

from datetime import date

import pytest

from terminal_sim import crypto
from terminal_sim.card import Lock
from terminal_sim.crypto import Algorithm, KeyKind
from terminal_sim.personalisation import CardProfile
from tests.unit.terminal_sim.cards import (
    ASN,
    BALANCE,
    ISSUER,
    ISSUER_ID,
    SELECT,
    buy,
    fixed_random,
    initialize_purchase,
    maintain,
    make_card,
    selected,
    send,
)

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
