"""`python -m switch.clearing.lint`: exit status 0 nothing wrong, 1 something is, 2 wrong use."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from switch.clearing.lint import FAULTS_SHOWN, Report, lint_file
from switch.clearing.lint.sm2 import read_public_key

MOST_FAULTS: Final = 100_000
KEY_BYTES_MAX: Final = 4_096


def read_keys(paths: Sequence[Path]) -> list[bytes]:
    """Public keys out of files. ValueError naming the file."""
    keys = []
    for path in paths:
        try:
            with path.open("rb") as stream:
                keys.append(read_public_key(stream.read(KEY_BYTES_MAX)))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
    return keys


def as_text(report: Report) -> str:
    """A report for people."""
    head = f"{report.path}: {report.kind or 'file'}, {report.lines:,} lines"
    if report.total_fen is not None and report.kind:
        head += f", {report.total_fen // 100:,}.{report.total_fen % 100:02d}"
    rows = [f"{head}: {'good' if report.good else f'{report.fault_count:,} faults'}"]
    rows += [f"  {fault}" for fault in report.faults]
    if report.fault_count > len(report.faults):
        rows.append(f"  and {report.fault_count - len(report.faults):,} more (--faults)")
    rows += [f"  note: {note}" for note in report.notes]
    return "\n".join(rows)


def as_json(reports: Sequence[Report]) -> str:
    """One document."""
    return json.dumps([report.as_dict() for report in reports], indent=2)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m switch.clearing.lint",
        description="Check clearing files, and the .ok and .sig beside them.",
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--key", action="append", default=[], type=Path, help="public key of SM2, PEM or hex; may be repeated"
    )
    parser.add_argument("--faults", type=int, default=FAULTS_SHOWN, help="faults shown of a file")
    parser.add_argument("--json", action="store_true", dest="as_json", help="one JSON document")
    given = parser.parse_args(arguments)
    if not 1 <= given.faults <= MOST_FAULTS:
        parser.error(f"--faults: 1 to {MOST_FAULTS}")
    try:
        keys = read_keys(given.key)
    except ValueError as error:
        parser.error(f"--key: {error}")
    reports = [lint_file(path, most=given.faults, keys=keys) for path in given.files]
    sys.stdout.write((as_json(reports) if given.as_json else "\n".join(map(as_text, reports))) + "\n")
    return 0 if all(report.good for report in reports) else 1


if __name__ == "__main__":
    sys.exit(main())
