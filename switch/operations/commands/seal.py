"""`cardswitch seal`: the seal of a day, shown and compared with the books, and proofs about single transactions."""

import asyncio
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from switch.clearing.close import day_folder
from switch.clearing.evidence.proof import Proof
from switch.clearing.evidence.proving import compare, find_reference, prove
from switch.clearing.evidence.seal_file import seal_name
from switch.clearing.evidence.sealing import StoredSeal, needed_seal
from switch.clearing.evidence.verify import (
    Finding,
    check_files,
    check_previous,
    check_signature,
    in_words,
    read_sealed,
)
from switch.clearing.whole_files import write_whole
from switch.domain.errors import InputRefused
from switch.operations.commands.verify import say_findings
from switch.settings import load_settings
from switch.storage.embedded import open_database
from switch.storage.pool import connect

app = typer.Typer(help="The seal of a day, and proofs about its transactions.", no_args_is_help=True)

_DATES = ["%Y-%m-%d", "%Y%m%d"]
Day = Annotated[datetime, typer.Argument(metavar="DATE", formats=_DATES, help="Business date.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document.")]


@app.command()
def show(day: Day, as_json: AsJson = False) -> None:
    """Show the seal of a day as it was made."""
    with open_database(load_settings()) as url:
        sealed = asyncio.run(_stored(url, day.date()))
    if as_json:
        typer.echo(orjson.dumps(_document(sealed), option=orjson.OPT_INDENT_2).decode())
    else:
        typer.echo(sealed.document.decode(), nl=False)


async def _stored(url: str, day: date) -> StoredSeal:
    async with await connect(url) as connection:
        return await needed_seal(connection, day)


def _document(sealed: StoredSeal) -> dict[str, Any]:
    seal = sealed.seal
    return {
        "day": seal.day,
        "institution": seal.institution,
        "created": seal.created,
        "leaves": seal.leaves,
        "root": seal.root.hex().upper(),
        "sm3": sealed.sm3,
        "previous": None if seal.before is None else seal.before._asdict(),
        "files": [file._asdict() for file in seal.files],
        "key": seal.key
        and {"name": seal.key.name, "kcv": seal.key.kcv, "public_key": seal.key.public.hex().upper()},
        "signature": seal.signature and seal.signature.hex().upper(),
    }


@app.command()
def check(day: Day, as_json: AsJson = False) -> None:
    """Hash the whole day again and compare it with its seal; compare the files, the file of the seal, and the day before.

    Reads every row of the day; names the entries among which something was changed. Exit 1 when anything differs.
    """
    settings = load_settings()
    with open_database(settings) as url:
        findings = asyncio.run(_check(url, day.date(), settings.clearing_folder, _progress()))
    say_findings(findings, as_json=as_json, day=day.date())


def _progress() -> Callable[[int, int], None]:
    """Leaves done, on one line of standard error; nothing where nobody looks."""
    if not sys.stderr.isatty():
        return lambda _done, _total: None

    def tell(done: int, total: int) -> None:
        sys.stderr.write(f"\r\x1b[K{done:,} of about {total:,} rows\r")
        sys.stderr.flush()

    return tell


async def _check(url: str, day: date, folder: Path, tell: Callable[[int, int], None]) -> list[Finding]:
    async with await connect(url) as connection:
        stored = await needed_seal(connection, day)
        differences = await compare(connection, day, stored, tell)
    findings = [Finding(False, difference.text) for difference in differences]
    if not findings:
        findings.append(Finding(True, f"the {stored.leaves:,} leaves of {day} lead to the sealed root"))
    path = day_folder(folder, day) / seal_name(stored.seal.institution, day)
    try:
        sealed = read_sealed(path)
    except InputRefused as error:
        return [*findings, Finding(False, str(error))]
    if sealed.sm3 != stored.sm3:
        findings.append(Finding(False, f"{path} is not the seal that was made for {day}"))
    findings += check_signature(sealed, ())
    findings += check_files(sealed, path.parent)
    before = sealed.seal.before
    if before is not None:
        last = day_folder(folder, before.day) / seal_name(sealed.seal.institution, before.day)
        try:
            findings.append(check_previous(sealed, read_sealed(last)))
        except InputRefused as error:
            findings.append(Finding(False, str(error)))
    return findings


@app.command("prove")
def prove_one(
    day: Annotated[datetime, typer.Option("--date", formats=_DATES, help="Business date.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the proof is written.")],
    rrn: Annotated[str | None, typer.Option("--rrn", help="Retrieval reference (field 37).")] = None,
    entry: Annotated[int | None, typer.Option("--entry", min=1, help="Entry number instead.")] = None,
    open_card: Annotated[
        bool,
        typer.Option(
            "--open",
            help="For somebody who knows the whole card number: it can then be checked too. "
            "Whoever has an opened proof can find the number by trying.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a proof that a transaction is in the sealed journal of a day. It is checked by `cardswitch verify`, anywhere."""
    if (rrn is None) == (entry is None):
        raise typer.BadParameter("give --rrn or --entry")
    with open_database(load_settings()) as url:
        proof = asyncio.run(_prove(url, day.date(), rrn, entry, opened=open_card))
    write_whole(output.absolute(), proof.packed())
    seal = seal_name(proof.institution, proof.day)
    if as_json:
        entries = [leaf.fields() for leaf in proof.entries]
        document = {"proof": str(output), "seal": seal, "leaves": proof.leaves, "entries": entries}
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    for leaf in proof.entries:
        typer.echo(f"entry {leaf.fields()['entry']}: {in_words(leaf.fields())}")
    typer.echo(f"{output} proves it with the seal {seal}: cardswitch verify {output} --seal {seal}")


async def _prove(url: str, day: date, rrn: str | None, entry: int | None, *, opened: bool) -> Proof:
    async with await connect(url) as connection:
        if entry is None:
            assert rrn is not None
            found = await find_reference(connection, day, rrn)
            if len(found) > 1:
                numbers = ", ".join(str(number) for number in found)
                raise InputRefused(f"several entries have that reference, choose one with --entry: {numbers}")
            (entry,) = found
        proof, _ = await prove(connection, day, entry, opened=opened)
        return proof
