"""`cardswitch vectors FILE...`: run known-answer files against this build."""

import json
from pathlib import Path
from typing import Annotated

import typer

from switch.domain.errors import InputRefused
from switch.operations.known_answers.run import Verdict, run_document

FILE_BYTES_MAX = 64 * 1024 * 1024


def vectors(
    files: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, readable=True, help="Vector files.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document instead of lines.")] = False,
) -> None:
    """Run known-answer files: one line per vector, a count at the end. Exit 1 when any fails."""
    verdicts: list[tuple[Path, Verdict]] = []
    problems: list[tuple[Path, str]] = []
    for path in files:
        try:
            for verdict in run_document(_load(path)):
                verdicts.append((path, verdict))
                if not as_json:
                    typer.echo(_line(verdict))
        except InputRefused as error:
            problems.append((path, str(error)))
            if not as_json:
                typer.echo(f"FAIL {path}: {error}")
    failed = sum(bool(verdict.faults) for _, verdict in verdicts)
    if as_json:
        typer.echo(json.dumps(_document(verdicts, problems, failed), ensure_ascii=False, indent=1))
    else:
        unread = f", {len(problems)} files not run" if problems else ""
        typer.echo(f"{len(verdicts)} vectors: {len(verdicts) - failed} ok, {failed} failed{unread}")
    if failed or problems:
        raise typer.Exit(1)


def _load(path: Path) -> object:
    if path.stat().st_size > FILE_BYTES_MAX:
        raise InputRefused("the file is larger than 64 MiB")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputRefused("not readable as JSON") from error


def _line(verdict: Verdict) -> str:
    return f"FAIL {verdict.ident}: {'; '.join(verdict.faults)}" if verdict.faults else f"ok {verdict.ident}"


def _document(
    verdicts: list[tuple[Path, Verdict]], problems: list[tuple[Path, str]], failed: int
) -> dict[str, object]:
    return {
        "vectors": [
            {
                "file": str(path),
                "id": verdict.ident,
                "suite": verdict.suite,
                "op": verdict.op,
                "ok": not verdict.faults,
                "faults": list(verdict.faults),
            }
            for path, verdict in verdicts
        ],
        "problems": [{"file": str(path), "reason": reason} for path, reason in problems],
        "count": len(verdicts),
        "ok": len(verdicts) - failed,
        "failed": failed,
    }
