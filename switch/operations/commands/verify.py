"""`cardswitch verify`: check a proof, a seal, or a folder of sealed days. Needs no database, no settings and no key of ours."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import orjson
import typer

from switch.clearing.evidence.verify import Finding, ask_card, examine, trusted_keys


def verify(
    proof: Annotated[
        Path | None, typer.Argument(help="A proof, as `seal prove` writes it.", exists=True, dir_okay=False)
    ] = None,
    seal: Annotated[
        Path | None, typer.Option("--seal", help="The seal of the day.", exists=True, dir_okay=False)
    ] = None,
    previous: Annotated[
        Path | None,
        typer.Option("--previous", help="The seal of the day before.", exists=True, dir_okay=False),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="The day's files, or a folder of days.", exists=True, file_okay=False),
    ] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="A public key that you trust, hex; may be repeated.")
    ] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Ask for the whole card number, for an opened proof.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Say what a proof or seal proves, in words. Exit 1 when something does not hold.

    With --folder also whether the files are those that were sealed, and whether each day's seal follows the one before.
    """
    if proof is None and seal is None and folder is None:
        raise typer.BadParameter("give a proof, a seal or a folder")
    findings = examine(
        *(proof, seal),
        previous=previous,
        folder=folder,
        keys=trusted_keys(key or ()),
        card=ask_card() if card else None,
    )
    say_findings(findings, as_json=as_json)


def say_findings(findings: Sequence[Finding], *, as_json: bool, **about: object) -> None:
    """Print them; exit 1 when something does not hold. about: what the document begins with."""
    good = not any(finding.good is False for finding in findings)
    if as_json:
        document = {**about, "holds": good, "findings": [finding._asdict() for finding in findings]}
        typer.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        for finding in findings:
            typer.echo(f"{finding.mark}  {finding.text}")
    if not good:
        raise typer.Exit(1)
