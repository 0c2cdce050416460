"""Signed files: the signature is there before the mark, is kept, and can be checked by anybody who has openssl."""

import shutil
import subprocess
from collections.abc import Callable
from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing import resends
from switch.clearing.close import CloseTerms, close_day, day_folder
from switch.clearing.files import FolderError, is_marked, write_companion
from switch.clearing.lint import lint_file
from switch.clearing.resends import resend
from switch.clearing.signatures import FileSigner
from switch.keys.opening import create_vault
from switch.keys.records import KeyMissingError
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore
from tests.helpers.signing import signing_vault

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
Contents = Callable[[Path], dict[str, bytes]]
SPKI = bytes.fromhex("3059301306072A8648CE3D020106082A811CCF5501822D034200")


@pytest.fixture
def vault(tmp_path: Path) -> SoftwareVault:
    return signing_vault(tmp_path)


async def test_every_file_is_signed_once_and_a_file_written_again_has_the_same_signature(
    pg: Pg, day: date, terms: CloseTerms, vault: SoftwareVault, contents: Contents
) -> None:
    signed = terms._replace(file_signer=FileSigner(vault))
    await close_day(pg, day, signed, "test")
    first = contents(terms.folder)
    names = [name for name in first if "." not in name]
    assert {f"{name}.sig" for name in names} == {name for name in first if name.endswith(".sig")}
    public = vault.public_key("FSK/SM2/v1/local")
    folder = day_folder(terms.folder, day)
    for name in names:
        report = lint_file(folder / name, keys=[public])
        assert (report.faults, report.notes) == ((), ("the signature is right",))
    (folder / f"{names[0]}.sig").write_bytes(b"another")
    (folder / f"{names[1]}.sig").unlink()
    (folder / names[2]).unlink()
    # A later key, or none at all: what was signed stays signed as it was.
    await close_day(pg, day, terms, "test")
    assert contents(terms.folder) == first


async def test_a_day_that_was_closed_unsigned_stays_so(
    pg: Pg, day: date, terms: CloseTerms, vault: SoftwareVault, contents: Contents
) -> None:
    await close_day(pg, day, terms, "test")
    first = contents(terms.folder)
    next(day_folder(terms.folder, day).glob("NP*1")).unlink()
    await close_day(pg, day, terms._replace(file_signer=FileSigner(vault)), "test")
    assert contents(terms.folder) == first


async def test_a_file_that_was_being_sent_again_gets_its_signature_with_the_days_other_files(
    pg: Pg, day: date, terms: CloseTerms, vault: SoftwareVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = terms._replace(file_signer=FileSigner(vault))
    await close_day(pg, day, signed, "test")
    folder = day_folder(terms.folder, day)
    name = next(folder.glob("NP*1")).name
    with monkeypatch.context() as patched:
        patched.setattr(resends, "sign_files", None)
        with pytest.raises(TypeError):
            await resend(pg, folder, name, "lost", "li wei", signed.file_signer)
    await close_day(pg, day, signed, "test")
    new = folder / f"{name[:-3]}002"
    assert lint_file(new).faults == ()
    assert is_marked(new, new_digest("sm3", new.read_bytes()).hexdigest().upper())
    signature = new.with_name(f"{new.name}.sig")
    first = signature.read_bytes()
    for damage in (b"", first[:-1]):
        signature.write_bytes(damage)
        ended = await resend(pg, folder, name, "again", "li wei", signed.file_signer)
        assert (ended.name, ended.finished, signature.read_bytes()) == (new.name, True, first)


async def test_openssl_agrees(pg: Pg, day: date, terms: CloseTerms, vault: SoftwareVault) -> None:
    openssl = shutil.which("openssl")
    listed = subprocess.run(
        [openssl or "false", "ecparam", "-list_curves"], capture_output=True, text=True, check=False
    )
    if openssl is None or "SM2" not in listed.stdout:
        pytest.skip("the openssl of this machine has no SM2")
    await close_day(pg, day, terms._replace(file_signer=FileSigner(vault)), "test")
    folder = day_folder(terms.folder, day)
    file = next(folder.glob("CM*1"))
    (folder / "key.der").write_bytes(SPKI + vault.public_key("FSK/SM2/v1/local"))
    (folder / "digest").write_bytes(new_digest("sm3", file.read_bytes()).digest())

    def verified(message: Path) -> bool:
        command = [
            openssl, "pkeyutl", "-verify", "-pubin", "-inkey", str(folder / "key.der"), "-keyform", "DER",
            "-in", str(message), "-rawin", "-digest", "sm3", "-sigfile", f"{file}.sig",
            "-pkeyopt", "distid:1234567812345678",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, check=False)
        return done.returncode == 0

    assert verified(folder / "digest")
    assert not verified(file)


def test_without_a_key_it_is_said_how_to_make_one(tmp_path: Path) -> None:
    store = JsonKeyStore(tmp_path / "keys.json")
    vault = create_vault(store, UnlockSecret.passphrase("correct horse battery"), rehearsal=True)
    with pytest.raises(KeyMissingError, match="keys generate --type FSK"):
        FileSigner(vault)


def test_a_signature_that_cannot_be_written_leaves_nothing_half(tmp_path: Path) -> None:
    with pytest.raises(FolderError):
        write_companion(tmp_path / "gone" / "NAME.sig", b"signature")
    write_companion(tmp_path / "NAME.sig", b"signature")
    assert [path.name for path in tmp_path.iterdir()] == ["NAME.sig"]
