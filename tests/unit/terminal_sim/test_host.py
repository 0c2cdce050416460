"""The simulated host's parts: books that recognise what comes twice, keys, scripts, and its command."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest
from typer.testing import CliRunner

from switch.domain.errors import InputRefused
from switch.messages.dialect import encode
from switch.messages.framing import frame
from switch.messages.host_1987 import BCD
from terminal_sim.commands import app
from terminal_sim.crypto import Block, CheckValueError, check_value, terminal_mac
from terminal_sim.host.book import Account, HostBook
from terminal_sim.host.command import read_accounts, read_book, read_secrets
from terminal_sim.host.keys import GRACE_S, HostKeyRing
from terminal_sim.host.medical import MedicalBook
from terminal_sim.host.script import NORMAL, Behaviour, Step, read_script
from tests.helpers.hosts import SECRETS

PAN = "6228480123456789006"


def fields(
    code: str, trace: int, amount: int | None = 100, original: tuple[str, int] | None = None
) -> dict[int, Any]:
    made: dict[int, Any] = {2: PAN, 3: f"{code}2000", 7: "1125103015", 11: f"{trace:06d}"}
    if amount is not None:
        made[4] = f"{amount:012d}"
    if original is not None:
        made[90] = f"{original[0]}{original[1]:06d}1125103015" + "0" * 22
    return made


#   MTI, code, trace, amount, original     answer, balance afterwards (opened with 1000)
COURSES: dict[str, list[tuple[str, str, int, int | None, tuple[str, int] | None, str, int]]] = {
    "a purchase, its repeat, and another under its key": [
        ("0200", "00", 1, 100, None, "00", 900),
        ("0200", "00", 1, 100, None, "00", 900),
        ("0200", "00", 1, 101, None, "94", 900),
    ],
    "money that is not there": [
        ("0200", "00", 1, 1001, None, "51", 1000),
        ("0200", "00", 1, 1001, None, "51", 1000),
        ("0220", "00", 2, 1001, None, "00", -1),
        ("0200", "00", 3, 0, None, "13", -1),
        ("0200", "01", 4, 10, None, "40", -1),
    ],
    "a reversal, again, and by the other message type": [
        ("0200", "00", 1, 100, None, "00", 900),
        ("0400", "00", 2, 100, ("0200", 1), "00", 1000),
        ("0400", "00", 2, 100, ("0200", 1), "00", 1000),
        ("0420", "00", 3, 100, ("0200", 1), "00", 1000),
        ("0200", "00", 1, 100, None, "00", 1000),
    ],
    "a reversal of a refusal": [
        ("0200", "00", 1, 5000, None, "51", 1000),
        ("0400", "00", 2, 5000, ("0200", 1), "00", 1000),
    ],
    "a reversal before its original": [
        ("0420", "00", 2, 100, ("0200", 1), "25", 1000),
        ("0200", "00", 1, 100, None, "22", 1000),
        ("0420", "00", 2, 100, ("0200", 1), "25", 1000),
    ],
    "a reversal over another amount": [
        ("0200", "00", 1, 100, None, "00", 900),
        ("0400", "00", 2, 99, ("0200", 1), "64", 900),
    ],
    "refunds up to the original": [
        ("0200", "00", 1, 100, None, "00", 900),
        ("0220", "20", 2, 60, ("0200", 1), "00", 960),
        ("0220", "20", 2, 60, ("0200", 1), "00", 960),
        ("0220", "20", 3, 41, ("0200", 1), "64", 960),
        ("0220", "20", 4, 40, ("0200", 1), "00", 1000),
        ("0220", "20", 5, 10, ("0200", 9), "25", 1000),
        ("0400", "00", 6, 100, ("0200", 1), "12", 1000),
    ],
}


@pytest.mark.parametrize("course", COURSES)
def test_a_course_of_events(course: str) -> None:
    book = HostBook([Account(PAN, 1000)])
    for mti, code, trace, amount, original, answer, balance in COURSES[course]:
        assert book.settle(mti, fields(code, trace, amount, original))[39] == answer, (mti, trace)
        assert book.balance_fen(PAN) == balance, (mti, trace)
    assert book.moved_fen == 1000 - book.balance_fen(PAN)


def test_an_unknown_card_and_a_balance() -> None:
    book = HostBook([Account(PAN, 1000, "864209")])
    assert book.settle("0200", fields("00", 1) | {2: "6228480000000000000"})[39] == "14"
    shown = book.settle("0200", fields("31", 2, None))
    assert shown[54] == "2001156C0000000010002002156C000000001000"
    assert "6228" not in repr(Account(PAN, 1))
    assert "8642" not in repr(Account(PAN, 1, "864209"))


#   MTI, field 3, category   answer, balance afterwards (opened with 1000)
POLICY = [
    ("0200", "004000", "8062", "00", 900),
    ("0200", "004000", "5912", "00", 900),
    ("0200", "004000", "8011", "00", 900),
    ("0200", "004000", "8099", "00", 900),
    ("0200", "004000", "5411", "57", 1000),  # a supermarket
    ("0200", "004000", "8100", "57", 1000),
    ("0200", "004000", "", "57", 1000),
    ("0220", "004000", "5411", "00", 900),  # an advice
    ("0200", "002000", "8062", "57", 1000),  # a bank account
    ("0200", "001000", "8062", "57", 1000),
    ("0200", "604000", "8062", "57", 1000),  # a load
    ("0100", "034000", "8062", "57", 1000),  # a hold
    ("0200", "314000", "5411", "00", 1000),  # a balance may be asked for anywhere
    ("0200", "", "8062", "57", 1000),
]


@pytest.mark.parametrize(("mti", "processing", "category", "answer", "balance"), POLICY)
def test_a_social_security_centre_pays_for_health_and_nothing_else(
    mti: str, processing: str, category: str, answer: str, balance: int
) -> None:
    book = MedicalBook([Account(PAN, 1000)])
    asked = fields("00", 1) | {3: processing, 18: category}
    assert book.settle(mti, asked)[39] == answer
    assert book.settle(mti, asked)[39] == answer, "its repeat"
    assert book.balance_fen(PAN) == balance


def test_a_medical_purchase_is_returned_whoever_asks_and_reversed_once() -> None:
    book = MedicalBook([Account(PAN, 1000)])
    bought = fields("00", 1) | {3: "004000", 18: "8062"}
    assert book.settle("0200", bought)[39] == "00"
    given_back = fields("20", 2, 40, ("0200", 1)) | {3: "204000", 18: "5411"}
    assert book.settle("0220", given_back)[39] == "00"
    assert book.balance_fen(PAN) == 940
    more = bought | {11: "000003"}
    assert book.settle("0200", more)[39] == "00"
    for trace in (4, 5):
        undone = fields("00", trace, 100, ("0200", 3)) | {3: "004000"}
        assert book.settle("0420", undone)[39] == "00"
    assert book.balance_fen(PAN) == 940


def test_a_suspended_person_may_look_and_not_pay_and_a_stranger_neither() -> None:
    book = MedicalBook([Account(PAN, 1000)], [PAN])
    assert book.settle("0200", fields("00", 1) | {3: "004000", 18: "8062"})[39] == "57"
    assert book.settle("0200", fields("31", 2, None) | {3: "314000"})[39] == "00"
    assert book.settle("0200", fields("00", 3) | {2: "1", 3: "004000", 18: "8062"})[39] == "14"


def wrapped(algorithm: str, pin_key: bytes, mac_key: bytes) -> bytes:
    secrets = SECRETS[algorithm]
    zmk = Block(secrets.algorithm, secrets.zmk)
    return b"".join(zmk.encrypt(key) + check_value(secrets.algorithm, key) for key in (pin_key, mac_key))


@pytest.mark.parametrize("algorithm", SECRETS)
def test_new_keys_wait_for_their_first_good_mac_and_the_old_ones_have_a_grace(algorithm: str) -> None:
    secrets = SECRETS[algorithm]
    ring = HostKeyRing(secrets)
    old, new = ring.current, bytes(range(1, 17))
    waiting = ring.receive(wrapped(algorithm, secrets.zak, new))
    old_mac, new_mac = old.mac.field64(b"mab"), terminal_mac(secrets.mac_id, new).field64(b"mab")
    assert ring.verify(b"mab", old_mac, 0.0) is old
    assert ring.verify(b"mab", bytes(8), 0.0) is None
    assert ring.verify(b"mab", new_mac, 1.0) is waiting
    assert ring.verify(b"mab", old_mac, GRACE_S + 0.9) is old
    assert ring.verify(b"mab", old_mac, GRACE_S + 1.0) is None
    assert ring.receive(wrapped(algorithm, secrets.zak, new)) is waiting
    assert ring.waiting is None
    with pytest.raises(CheckValueError):
        ring.receive(bytes(40))
    assert "0102" not in repr(ring.current) + repr(secrets)


def test_a_script_is_read_and_what_is_none_is_named() -> None:
    script = read_script("normal*2, slow:0.5,silent*3,")
    assert [script.next() for _ in range(8)] == [
        NORMAL,
        NORMAL,
        Step(Behaviour.SLOW, 0.5),
        *[Step(Behaviour.SILENT)] * 3,
        NORMAL,
        NORMAL,
    ]
    for text in ("sulky", "slow:", "slow:x", "normal*", "normal*9999999"):
        with pytest.raises(ValueError):
            read_script(text)


def keys_file(tmp_path, algorithm="SM4"):
    secrets = SECRETS[algorithm]
    mask = int("5A" * 16, 16)
    keys = [
        {
            "type": kind,
            "algorithm": algorithm,
            "owner": "01020000",
            "level": "zone",
            "components": [f"{mask:032X}", f"{int.from_bytes(clear) ^ mask:032X}"],
        }
        for kind, clear in (("ZMK", secrets.zmk), ("ZAK", secrets.zak), ("ZPK", secrets.zpk))
    ]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"format": "cardswitch-rehearsal-keys/1", "keys": keys}))
    return path


def test_keys_and_accounts_come_from_files(tmp_path) -> None:
    path = keys_file(tmp_path)
    assert read_secrets(path, "01020000", 5) == SECRETS["SM4"]
    with pytest.raises(InputRefused, match="no ZMK and no ZAK and no ZPK for 3DES"):
        read_secrets(path, "01020000", 1)
    path.write_text("{}")
    with pytest.raises(InputRefused, match="not a file of rehearsal keys"):
        read_secrets(path, "01020000", 5)
    accounts = tmp_path / "accounts.json"
    accounts.write_text(
        json.dumps([{"pan": PAN, "balance_fen": 5, "pin": "1234"}, {"pan": "1", "balance_fen": 0}])
    )
    assert read_accounts(accounts) == [Account(PAN, 5, "1234"), Account("1", 0)]
    assert read_accounts(None) == []
    assert type(read_book(accounts, "bank")) is HostBook
    accounts.write_text(json.dumps([{"pan": PAN, "balance_fen": 500, "suspended": True}]))
    centre = read_book(accounts, "social-security")
    assert isinstance(centre, MedicalBook)
    assert centre.settle("0200", fields("00", 1) | {3: "004000", 18: "8062"})[39] == "57"
    for wrong in ('[{"pan": 1}]', "[1]", "{}x", '[{"pan": "1", "balance_fen": "x"}]'):
        accounts.write_text(wrong)
        with pytest.raises(InputRefused):
            read_accounts(accounts)


def test_the_command_says_where_it_listens_and_at_the_end_what_came(tmp_path) -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "switch",
            "sim",
            "host",
            "--institution",
            "01020000",
            "--keys",
            str(keys_file(tmp_path)),
        ],
        stdout=subprocess.PIPE,
        env=dict(os.environ),
        cwd=tmp_path,
        text=True,
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline().startswith("ready: host 127.0.0.1:")
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.read()) == {"counts": {}, "moved_fen": 0}
    assert process.returncode == 0


@pytest.mark.parametrize(
    "wrong", [["--kind", "insurer"], ["--dialect", "morse"], ["--script", "sulky"], ["--habit", ""]]
)
def test_the_command_names_a_wrong_option(tmp_path, wrong) -> None:
    given = ["host", "--institution", "01020000", "--keys", str(keys_file(tmp_path)), *wrong]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert wrong[0] in result.output


def test_a_host_that_is_told_to_falls_silent_books_and_comes_back_with_its_books(tmp_path) -> None:
    """What no answer told of stands in the file; the one that comes back knows it."""
    accounts, books = tmp_path / "accounts.json", tmp_path / "books"
    accounts.write_text(json.dumps([{"pan": PAN, "balance_fen": 1000}]))
    command = [*(sys.executable, "-m", "switch", "sim", "host", "--institution", "01020000")]
    command += ["--keys", str(keys_file(tmp_path)), "--accounts", str(accounts), "--books", str(books)]

    def begin() -> tuple[subprocess.Popen[str], int]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=tmp_path, text=True)
        assert process.stdout is not None
        return process, int(process.stdout.readline().rpartition(":")[2])

    asked = fields("00", 1) | {3: "002000", 100: "01020000", 49: "156"}
    process, port = begin()
    with process:
        process.send_signal(signal.SIGUSR1)
        assert process.stdout is not None
        assert process.stdout.readline() == "silent\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as line:
            sign_on = {7: asked[7], 11: "000009", 70: "001"}
            line.sendall(framed("0800", sign_on))
            assert line.recv(1_000)
            line.sendall(framed("0200", asked))
            deadline = time.monotonic() + 60
            while not books.stat().st_size and time.monotonic() < deadline:
                time.sleep(0.01)
            process.kill()
            assert line.recv(1_000) == b""
    process, _ = begin()
    with process:
        assert process.stdout is not None
        process.send_signal(signal.SIGTERM)
        assert json.loads(process.stdout.read())["moved_fen"] == 100


def framed(mti: str, content: dict[int, Any]) -> bytes:
    mab = encode(BCD, mti, content)
    secrets = SECRETS["SM4"]
    return frame(mab + terminal_mac(secrets.mac_id, secrets.zak).field64(mab), BCD.frames)
