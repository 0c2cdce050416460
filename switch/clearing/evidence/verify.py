"""Checking seals and proofs, for whoever is handed them: no database, no settings, no network, no key but those in hand.

    python -m switch.clearing.evidence.verify [PROOF] [--seal FILE] [--previous FILE] [--folder DIR] [--key HEX] [--card]

Every step is said in words. What is not shown is said too: a signature tells who sealed only to somebody who knows the key from elsewhere.
"""

import argparse
import getpass
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from hashlib import new as new_digest
from pathlib import Path
from typing import Final, NamedTuple

from switch.clearing.evidence.merkle import PathRefused
from switch.clearing.evidence.proof import PROOF_BYTES_MAX, Proof, ProvenLeaf, read_proof
from switch.clearing.evidence.seal_file import (
    SEAL_BYTES_MAX,
    Seal,
    SealRefused,
    digest_of_seal,
    read_seal,
    seal_name,
)
from switch.domain.errors import InputRefused, SwitchError
from switch.domain.identifiers import CardNumber
from switch.domain.money import yuan

_BUFFER_BYTES: Final = 1 << 20
_DAY_FOLDER: Final = re.compile("[0-9]{8}")
_SEAL_FILE: Final = re.compile("[0-9]{16}[.]seal")
_PUBLIC_KEY: Final = re.compile("04[0-9A-F]{128}")


class Finding(NamedTuple):
    """One thing that was looked at. good: None where nothing was proven either way."""

    good: bool | None
    text: str

    @property
    def mark(self) -> str:
        """How it is listed."""
        return {True: "ok   ", False: "WRONG", None: "note "}[self.good]


class Sealed(NamedTuple):
    """A seal as it lies on the disk."""

    path: Path
    seal: Seal
    sm3: str


def read_sealed(path: Path) -> Sealed:
    """Read one. SealRefused or InputRefused with the path."""
    packed = _read(path, SEAL_BYTES_MAX)
    try:
        return Sealed(path, read_seal(packed), digest_of_seal(packed))
    except SealRefused as error:
        raise InputRefused(f"{path}: {error}") from None


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(bytes_max + 1)
    except OSError as error:
        raise InputRefused(f"{path}: {error.strerror}") from error
    if len(content) > bytes_max:
        raise InputRefused(f"{path}: larger than {bytes_max >> 20} MiB")
    return content


def trusted_keys(texts: Iterable[str]) -> tuple[bytes, ...]:
    """Public keys as people write them: 130 hex digits beginning with 04, blanks and colons allowed."""
    keys = []
    for text in texts:
        digits = re.sub("[ :]", "", text).upper()
        if not _PUBLIC_KEY.fullmatch(digits):
            raise InputRefused("key: must be an SM2 public key, 130 hex digits beginning with 04")
        keys.append(bytes.fromhex(digits))
    return tuple(keys)


def ask_card() -> CardNumber:
    """The card number that somebody brings: typed unseen, or a line of standard input, so that it stands in no list of processes."""
    digits = getpass.getpass("card number: ") if sys.stdin.isatty() else sys.stdin.readline(64)
    try:
        return CardNumber(digits.strip())
    except ValueError as error:
        raise InputRefused(str(error)) from None


def check_signature(sealed: Sealed, keys: Sequence[bytes]) -> Iterator[Finding]:
    """Who signed a seal, and whether that is one of the keys that the reader trusts."""
    seal = sealed.seal
    if seal.key is None:
        good = False if keys else None
        yield Finding(
            good,
            f"nobody has signed the seal of {seal.day}: it proves what it says to whoever trusts this copy",
        )
        return
    try:
        seal.check_signature()
    except SealRefused:
        yield Finding(
            False,
            f"the signature of {sealed.path.name} is not that of the key in it: a byte of it was changed",
        )
        return
    named = f"{seal.key.name}, check value {seal.key.kcv}"
    yield Finding(True, f"the seal of {seal.day} is signed by {named}")
    if not keys:
        yield Finding(
            None, "whose key that is, the seal cannot say: compare it with the one you were given (--key)"
        )
    elif seal.key.public in keys:
        yield Finding(True, "that is the key you trust")
    else:
        yield Finding(False, f"the seal of {seal.day} is signed, but not by a key that you trust")


def check_previous(sealed: Sealed, previous: Sealed) -> Finding:
    """Whether a seal follows another."""
    before = sealed.seal.before
    if before is None:
        return Finding(False, f"the seal of {sealed.seal.day} says that there was none before it")
    if previous.seal.institution != sealed.seal.institution:
        return Finding(False, f"{previous.path.name} is another institution's")
    if (before.day, before.sm3) != (previous.seal.day, previous.sm3):
        reason = (
            "that file was changed" if before.day == previous.seal.day else f"it names that of {before.day}"
        )
        return Finding(
            False, f"the seal of {sealed.seal.day} does not follow that of {previous.seal.day}: {reason}"
        )
    return Finding(True, f"the seal of {sealed.seal.day} follows that of {previous.seal.day}, byte for byte")


def check_proof(proof: Proof, sealed: Sealed, card: CardNumber | None) -> Iterator[Finding]:
    """Whether the transaction is in the sealed day."""
    seal = sealed.seal
    if (proof.institution, proof.day) != (seal.institution, seal.day):
        yield Finding(
            False,
            f"the proof is about {proof.day} of {proof.institution}, the seal is that of another day or institution",
        )
        return
    for what, said, sealed_value in (
        ("number of leaves", proof.leaves, seal.leaves),
        ("root", proof.root, seal.root),
        ("digest of the seal", proof.seal, sealed.sm3),
    ):
        if said != sealed_value:
            yield Finding(False, f"the {what} in the proof is not the seal's: one of the two was changed")
    led = [finding for entry in proof.entries for finding in _check_entry(entry, sealed)]
    yield from led
    if card is not None and all(
        finding.good for finding in led
    ):  # what was not sealed says nothing about cards
        yield from _check_card(proof, card)


def _check_entry(entry: ProvenLeaf, sealed: Sealed) -> Iterator[Finding]:
    seal, fields = sealed.seal, entry.fields()
    place = f"entry {fields['entry']}"
    try:
        leads_to = entry.root(seal.leaves)
    except PathRefused as error:
        yield Finding(False, f"{place}: {error}")
        return
    if leads_to != seal.root:
        yield Finding(
            False, f"{place} does not lead to the sealed root: its content, place or path was changed"
        )
        return
    if fields["business_date"] != seal.day.isoformat():
        yield Finding(False, f"{place} is of another day than the seal")
        return
    yield Finding(
        True,
        f"{place} is leaf {entry.place} of the {seal.leaves} that were sealed for {seal.day}: {in_words(fields)}",
    )


def _check_card(proof: Proof, card: CardNumber) -> Iterator[Finding]:
    """Whether the leaves that name a card are of this one."""
    named = [(entry, fields) for entry in proof.entries if (fields := entry.fields())["card"]]
    if not named:
        yield Finding(False, "the proof is about no card")
    for entry, fields in named:
        place = f"entry {fields['entry']}"
        if entry.opening is None:
            yield Finding(
                None,
                f"{place}: the proof is not opened, so it tells the first six and last four digits of the card only",
            )
        elif entry.opening.fits(card, fields["commitment"]):
            yield Finding(True, f"{place} is of the card {card}, whose whole number you gave")
        else:
            yield Finding(False, f"{place} is not of the card whose number you gave")


def in_words(fields: dict[str, str]) -> str:
    """A leaf in one line; cards masked as they are in it."""
    if fields["form"] == "R":
        words = [f"offline record with result {fields['result']}"]
        if fields["amount_fen"]:
            words.append(f"{yuan(int(fields['amount_fen']))} CNY")
        words += [f"card {fields['card']}"] if fields["card"] else []
        return ", ".join((*words, f"taken at {fields['received_at']}"))
    words = []
    if fields["kind"]:
        words.append(f"kind {fields['kind']}, answer {fields['answer']}, reference {fields['rrn']}")
        words.append(f"{yuan(int(fields['amount_fen']))} CNY")
        words += [f"card {fields['card']}"] if fields["card"] else []
        words.append(f"decided at {fields['decided_at']}")
    if fields["posted_fen"]:
        sides = f"{fields['debit_code']}/{fields['debit_owner']} to {fields['credit_code']}/{fields['credit_owner']}"
        words.append(f"posted {yuan(int(fields['posted_fen']))} CNY from {sides}")
    return ", ".join(words)


def check_files(sealed: Sealed, folder: Path) -> Iterator[Finding]:
    """Whether the files in a day's folder are those that were sealed."""
    wrong = False
    for file in sealed.seal.files:
        digest, size = new_digest("sm3"), 0
        try:
            with (folder / file.name).open("rb") as stream:
                while block := stream.read(_BUFFER_BYTES):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            wrong = True
            yield Finding(False, f"{file.name}: {error.strerror}")
            continue
        if (digest.hexdigest().upper(), size) != (file.sm3, file.size):
            wrong = True
            yield Finding(
                False,
                f"{file.name} is not the file that was sealed for {sealed.seal.day}: {size:,} bytes, sealed {file.size:,}",
            )
    if not wrong:
        yield Finding(
            True, f"all {len(sealed.seal.files)} files of {sealed.seal.day} are those that were sealed"
        )


def seals_below(folder: Path) -> list[Sealed]:
    """All seals of a folder of days, the oldest first."""
    paths = [
        path
        for day in sorted(folder.iterdir())
        if _DAY_FOLDER.fullmatch(day.name) and day.is_dir()
        for path in sorted(day.iterdir())
        if _SEAL_FILE.fullmatch(path.name)
    ]
    found = [read_sealed(path) for path in paths]
    for one in found:
        if one.path.name != seal_name(one.seal.institution, one.seal.day):
            raise InputRefused(f"{one.path}: holds the seal of {one.seal.day}")
    return sorted(found, key=lambda one: (one.seal.institution, one.seal.day))


def check_chain(seals: Sequence[Sealed], keys: Sequence[bytes]) -> Iterator[Finding]:
    """Whether each seal names the one before it, so that none was changed, left out or put in between."""
    for number, sealed in enumerate(seals):
        last = seals[number - 1] if number else None
        if last is None or last.seal.institution != sealed.seal.institution:
            before = sealed.seal.before
            begin = (
                "the first that was ever made"
                if before is None
                else f"that of {before.day} before it is not here"
            )
            yield Finding(
                None, f"the chain of {sealed.seal.institution} begins with {sealed.seal.day}: {begin}"
            )
        else:
            yield check_previous(sealed, last)
            if (sealed.seal.key and sealed.seal.key.public) != (last.seal.key and last.seal.key.public):
                yield Finding(None, f"from {sealed.seal.day} on another key signs, or none")
        yield from (finding for finding in check_signature(sealed, keys) if finding.good is False)


def days_folder(folder: Path) -> Path:
    """The folder of days that a folder is, or that it lies in."""
    return folder.parent if _DAY_FOLDER.fullmatch(folder.resolve().name) else folder


def examine(
    proof: Path | None,
    seal: Path | None,
    *,
    previous: Path | None = None,
    folder: Path | None = None,
    keys: Sequence[bytes] = (),
    card: CardNumber | None = None,
) -> list[Finding]:
    """Everything that can be said about what was given. InputRefused when something cannot be read at all."""
    if proof is not None and seal is None:
        raise InputRefused("a proof is checked against the seal of its day: give it (--seal)")
    if seal is None and folder is None:
        raise InputRefused("give a seal (--seal), or a folder of days (--folder)")
    findings: list[Finding] = []
    sealed = None if seal is None else read_sealed(seal)
    if sealed is not None:
        findings += check_signature(sealed, keys)
        if previous is not None:
            findings.append(check_previous(sealed, read_sealed(previous)))
        if proof is not None:
            findings += check_proof(read_proof(_read(proof, PROOF_BYTES_MAX)), sealed, card)
    if folder is not None:
        findings += _examine_folder(folder, sealed, keys)
    return findings


def _examine_folder(folder: Path, sealed: Sealed | None, keys: Sequence[bytes]) -> Iterator[Finding]:
    if not folder.is_dir():
        raise InputRefused(f"{folder}: no such folder")
    days = days_folder(folder)
    seals = seals_below(days)
    if sealed is not None:
        own = days / f"{sealed.seal.day:%Y%m%d}"
        yield from check_files(sealed, own if own.is_dir() else folder)
        if not any(one.sm3 == sealed.sm3 for one in seals):
            if any(
                (one.seal.institution, one.seal.day) == (sealed.seal.institution, sealed.seal.day)
                for one in seals
            ):
                yield Finding(False, f"the seal of {sealed.seal.day} in the folder is another one")
            seals = [one for one in seals if one.seal.day != sealed.seal.day]
            seals = sorted([*seals, sealed], key=lambda one: (one.seal.institution, one.seal.day))
    else:
        for one in seals:
            yield from check_files(one, one.path.parent)
    if not seals:
        yield Finding(False, f"{days}: no seal of any day")
    yield from check_chain(seals, keys)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command without the rest of the program. Exit status 0 all proven, 1 something is wrong, 2 wrong use."""
    parser = argparse.ArgumentParser(description="Check a proof, a seal, or a folder of sealed days.")
    parser.add_argument("proof", nargs="?", type=Path)
    parser.add_argument("--seal", type=Path)
    parser.add_argument("--previous", type=Path, help="the seal of the day before")
    parser.add_argument("--folder", type=Path, help="the day's files, or a folder of days")
    parser.add_argument("--key", action="append", default=[], help="a public key that you trust, hex")
    parser.add_argument("--card", action="store_true", help="ask for the card number, for an opened proof")
    said = parser.parse_args(arguments)
    try:
        card = ask_card() if said.card else None
        findings = examine(
            *(said.proof, said.seal),
            previous=said.previous,
            folder=said.folder,
            keys=trusted_keys(said.key),
            card=card,
        )
    except SwitchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for finding in findings:
        sys.stdout.write(f"{finding.mark}  {finding.text}\n")
    return 1 if any(finding.good is False for finding in findings) else 0


if __name__ == "__main__":
    sys.exit(main())
