"""The form of a seal: one way to write it, and every byte counts."""

import subprocess
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from switch.clearing.evidence.merkle import EMPTY_ROOT
from switch.clearing.evidence.seal_file import (
    Before,
    Seal,
    SealedFile,
    SealKey,
    SealRefused,
    read_seal,
    seal_name,
)
from switch.keys import sm2
from tests.unit.clearing.evidence.test_merkle import sm3

PAIR = sm2.generate()
UNSIGNED = Seal(
    "99993350",
    date(2026, 11, 26),
    datetime(2026, 11, 26, 15, 0, 5, tzinfo=UTC),
    3,
    sm3(b"root"),
    Before(date(2026, 11, 25), sm3(b"before").hex().upper()),
    (SealedFile("NP999900009999335020261126001", sm3(b"file").hex().upper(), 172),),
)


def signed(seal: Seal) -> Seal:
    named = seal._replace(key=SealKey("ESK/SM2/v1/local", PAIR.public))
    return named._replace(signature=sm2.sign(PAIR, named.signed_part()))


def test_a_seal_is_read_as_it_was_written() -> None:
    for seal in (
        UNSIGNED,
        signed(UNSIGNED),
        UNSIGNED._replace(before=None, files=(), leaves=0, root=EMPTY_ROOT),
    ):
        assert read_seal(seal.packed()) == seal
    assert seal_name("99993350", date(2026, 11, 26)) == "9999335020261126.seal"


def test_what_stands_in_it_is_what_the_document_describes() -> None:
    lines = UNSIGNED.packed().decode().splitlines()
    assert lines[:4] == [
        "citizen-card-seal 1",
        "institution 99993350",
        "day 2026-11-26",
        "created 2026-11-26T15:00:05Z",
    ]
    assert [line.split()[0] for line in lines[4:]] == [
        *("tree", "leaves", "root", "previous", "files", "file", "key", "signature")
    ]


def test_any_byte_changed_is_refused_or_breaks_the_signature() -> None:
    packed = signed(UNSIGNED).packed()
    signed(UNSIGNED).check_signature()
    for at in range(0, len(packed), 3):
        changed = bytearray(packed)
        changed[at] ^= 1
        with pytest.raises(SealRefused):
            read_seal(bytes(changed)).check_signature()


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("citizen-card-seal 1", "citizen-card-seal 2", 1),
        ("day 2026-11-26", "day 2026-02-30", 3),
        ("day 2026-11-26", "day 20261126", 3),
        ("created 2026-11-26T15", "created 2026-11-26T25", 4),
        ("leaves 3", "leaves 03", 6),
        ("leaves 3", "leaves -3", 6),
        ("previous 2026-11-25", "previous 2026-11-26", 8),
        ("files 1", "files 2", 11),
        ("files 1", "files 999999", 11),
        ("172 NP", "172 ../NP", 10),
        ("172 NP", "0172 NP", 10),
        ("signature none", "signature none\n", 12),
        ("signature none", f"signature {'A' * 128}", 12),
        ("key none", "key some", 11),
        ("\n", "\r\n", 1),
        ("99993350", "9999335é", 2),
    ],
)
def test_what_is_not_as_it_must_be_is_named_by_its_line(old: str, new: str, line: int) -> None:
    text = UNSIGNED.packed().decode()
    assert old in text
    changed = text.replace(old, new, 1) if old != "\n" else text.replace(old, new)
    with pytest.raises(SealRefused) as refused:
        read_seal(changed.encode())
    assert refused.value.line == line, str(refused.value)


def test_a_seal_cut_anywhere_is_refused() -> None:
    packed = UNSIGNED.packed()
    for at in range(len(packed)):
        with pytest.raises(SealRefused):
            read_seal(packed[:at])


def test_the_openssl_command_line_accepts_the_signature(tmp_path: Path) -> None:
    seal = signed(UNSIGNED)
    assert seal.signature is not None
    # SubjectPublicKeyInfo of a point on the curve SM2, written out.
    prefix = bytes.fromhex("3059301306072A8648CE3D020106082A811CCF5501822D034200")
    (tmp_path / "key.der").write_bytes(prefix + PAIR.public)
    (tmp_path / "signed").write_bytes(b"".join(seal.packed().splitlines(keepends=True)[:-1]))
    r, s = int.from_bytes(seal.signature[:32]), int.from_bytes(seal.signature[32:])
    (tmp_path / "signature.der").write_bytes(encode_dss_signature(r, s))
    command = [
        *(
            "openssl",
            "pkeyutl",
            "-verify",
            "-pubin",
            "-keyform",
            "DER",
            "-inkey",
            "key.der",
            "-rawin",
            "-in",
            "signed",
        ),
        *("-sigfile", "signature.der", "-digest", "sm3", "-pkeyopt", "distid:1234567812345678"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Signature Verified Successfully" in done.stdout
