"""One file read from its first byte to its last: header, lines, trailer, and what they must say together."""

import re
from collections.abc import Sequence
from hashlib import new as new_digest
from pathlib import Path
from typing import BinaryIO, Final

from switch.clearing.layouts import LAYOUTS
from switch.clearing.lint.accidents import (
    UTF8_BOM,
    after_trailer,
    not_ascii,
    odd_field,
    odd_length,
    unreadable,
)
from switch.clearing.lint.companions import check_companions
from switch.clearing.lint.edges import NAME, TRAILER_LENGTH, Read, compare, read_header, read_trailer
from switch.clearing.lint.faults import FAULTS_SHOWN, Findings, Report
from switch.clearing.lint.patterns import expected, field_pattern, placed_fields
from switch.clearing.lint.rules import RULES, Rules

LINE_BYTES_MAX: Final = 4_096  # no line has more than 352; a longer one is passed over in pieces
PEEK_BYTES: Final = 4_096
JOINED_LINES: Final = 256  # that are digested together
READ_BYTES: Final = 1 << 20
CRLF: Final = b"\r\n"


def lint_file(path: Path, *, most: int = FAULTS_SHOWN, keys: Sequence[bytes] = ()) -> Report:
    """Check a file, and the `.ok` and `.sig` beside it. most: faults that are kept. keys: public keys, 65 bytes each."""
    findings = Findings(most)
    name = path.name
    if name.endswith(".tmp"):
        findings.add("name", "the name ends with .tmp", "a file still being written; wait for its .ok")
        name = name.removesuffix(".tmp")
    if not NAME.fullmatch(name):
        findings.add(
            "name", "not a file's name", "type 2, sender 8, receiver 8, date 8, sequence 3: 29 characters"
        )
    try:
        with path.open("rb", buffering=READ_BYTES) as stream:
            check = _Check(name, stream, findings)
            check.run()
        sm3 = _digest(path) if check.mended else check.whole.hexdigest().upper()
        check_companions(path, sm3, keys, findings)
    except OSError as error:
        findings.add("unreadable", error.strerror or type(error).__name__)
        return Report(str(path), "", 0, None, "", tuple(findings.kept), findings.count, tuple(findings.notes))
    return Report(
        str(path),
        check.kind,
        check.count,
        check.total,
        sm3,
        tuple(findings.kept),
        findings.count,
        tuple(findings.notes),
    )


def _digest(path: Path) -> str:
    digest = new_digest("sm3")
    with path.open("rb") as stream:
        while block := stream.read(READ_BYTES):
            digest.update(block)
    return digest.hexdigest().upper()


class _Check:
    """The state of one reading."""

    def __init__(self, name: str, stream: BinaryIO, findings: Findings) -> None:
        self.name = name
        self.stream = stream
        self.findings = findings
        self.kind = ""
        self.header: dict[str, bytes] = {}
        self.count = 0
        self.total: int | None = 0
        self.number = 0  # of the line at hand in the file, from 1
        self.line_no = 0  # of the last numbered line
        self.bare_ends = 0  # lines that end with LF alone
        self.mended = False  # bytes are not digested as they stand
        self.cut = False  # the file ends before its trailer does
        self.digest = new_digest("sm3")  # of what the trailer's is over
        self.whole = self.digest
        self.pending: list[bytes] = []

    # --- lines

    def _take(self, line: bytes) -> bytes:
        """A line without its end, as far as it has one; mends the end for the digest."""
        self.number += 1
        if line[-2:] == CRLF:
            body = line[:-2]
        elif line[-1:] == b"\n":
            self.bare_ends += 1
            self.mended = True
            body = line[:-1]
        else:
            return line
        return body

    def _keep(self, body: bytes) -> None:
        self.pending.append(body + CRLF)
        if len(self.pending) == JOINED_LINES:
            self._digest_pending()

    def _digest_pending(self) -> None:
        self.digest.update(b"".join(self.pending))
        self.pending.clear()

    def _line(self) -> bytes:
        """The next line with its end; one that is too long loses what is beyond."""
        line = self.stream.readline(LINE_BYTES_MAX)
        if len(line) == LINE_BYTES_MAX and line[-1:] != b"\n":
            self.mended = True
            while rest := self.stream.readline(LINE_BYTES_MAX):
                if rest[-1:] == b"\n":
                    return line + CRLF
        return line

    # --- the whole

    def run(self) -> None:
        """Read it all."""
        start = self.stream.read(PEEK_BYTES)
        if unreadable(start, self.findings):
            self.mended = True
            return
        self.stream.seek(0)
        if start.startswith(UTF8_BOM):
            self.mended = True
            self.stream.seek(len(UTF8_BOM))
            self.findings.add("bom", "a UTF-8 byte-order mark", "none: the first byte is H", line=1, column=1)
        line = self._line()
        self._header(line)
        self.kind = self.header.get("type", b"").decode() or self.name[:2]
        if self.kind not in LAYOUTS:
            self.kind = self.name[:2] if self.name[:2] in LAYOUTS else ""
        if not self.kind:
            self.mended = True
            self.findings.add(
                "type", "neither name nor header names a type of file", ", ".join(LAYOUTS), line=1, column=2
            )
            return
        rules = RULES[self.kind](
            self.kind, self.header.get("clearing_date", b""), self.header.get("total", b"")
        )
        if line[:1] == b"D":  # the header is missing, and this is the first line already
            self.number -= 1
            trailer = self._details(rules, line)
        else:
            trailer = self._details(rules)
        self._end(rules, trailer)

    def _header(self, line: bytes) -> None:
        body = self._take(line)
        if line[:1] == b"D":
            self.findings.add(
                "header",
                "the header is missing",
                "H and 79 more characters in the first line",
                line=1,
                column=1,
            )
            return
        self._keep(body)
        self.header = read_header(body, self.name, self.findings)

    def _details(self, rules: Rules, line: bytes = b"") -> bytes:
        """Read detail lines up to what is none; returns that line, empty at the end of the file."""
        width = rules.layout.length
        fits, check, numbered = rules.pattern.fullmatch, rules.check, rules.numbered
        pending = self.pending

        def say(field: str, rule: str, says: str) -> None:
            column = next(place.column for place in placed_fields(rules.layout) if place.field.name == field)
            self.findings.add("rule", rule, says, line=self.number, column=column, field=field)

        while True:
            line = line or self._line()
            found = fits(line, 0, width) if len(line) == width + 2 and line[-2:] == CRLF else None
            if found is not None:
                self.number += 1
                self.count += 1
                values = found.groups()
                if numbered:
                    self.line_no += 1
                    if int(values[0]) != self.line_no:
                        self._renumber(int(values[0]))
                share = check(values, say)
                if self.total is not None:
                    self.total += share
                pending.append(line)
                if len(pending) >= JOINED_LINES:
                    self._digest_pending()
            elif not line or self._is_trailer(line):
                return line
            else:
                self._odd(line, rules)
            line = b""

    def _is_trailer(self, line: bytes) -> bool:
        if line[:1] == b"D" and len(line) != TRAILER_LENGTH + 2:
            return False
        return line[:1] == b"T" or (
            line[1:3] == self.kind.encode() and len(line.rstrip(CRLF)) == TRAILER_LENGTH
        )

    def _renumber(self, number: int) -> None:
        if number > self.line_no:
            missing = number - self.line_no
            said = f"{missing} {'line is' if missing == 1 else 'lines are'} missing before this one"
            code = "line-missing"
        else:
            said, code = "the line number goes back or stands twice", "line-order"
        self.findings.add(
            code, said, "1, 2, 3 ... without a gap", line=self.number, column=2, field="line_no"
        )
        self.line_no = number

    def _odd(self, line: bytes, rules: Rules) -> None:
        """A line that does not fit: find out why, as long as anybody is told."""
        body = self._take(line)
        ended = body is not line
        width = rules.layout.length
        if not ended and not self.stream.read(1):
            self.cut = True
            self.number -= 1
            self.pending.append(line)
            return
        if body[:1] == b"D":
            self.count += 1
        before = self.findings.count
        found = rules.pattern.fullmatch(body) if len(body) == width else None
        if not body.isascii():
            not_ascii(body, self.number, self.findings)
        elif len(body) != width:
            odd_length(body, width, self.number, self.findings)
        elif found is None and self.findings.full:
            self.findings.count += 1
        elif found is None:
            self._odd_fields(body, rules)
        if found is not None:
            share: int | None = self._mended(found.groups(), rules)
        else:
            share = rules.share(body) if body[:1] == b"D" else 0
            self.line_no += body[:1] == b"D"
            assert self.findings.count > before, "a line that is refused has a fault"
        self.total = None if share is None or self.total is None else self.total + share
        self._keep(body)

    def _mended(self, values: tuple[bytes, ...], rules: Rules) -> int:
        """A line that is good but for its end."""

        def say(field: str, rule: str, says: str) -> None:
            column = next(place.column for place in placed_fields(rules.layout) if place.field.name == field)
            self.findings.add("rule", rule, says, line=self.number, column=column, field=field)

        if rules.numbered:
            self.line_no += 1
            if int(values[0]) != self.line_no:
                self._renumber(int(values[0]))
        return rules.check(values, say)

    def _odd_fields(self, body: bytes, rules: Rules) -> None:
        for placed in placed_fields(rules.layout):
            value = body[placed.column - 1 : placed.column - 1 + placed.field.width]
            if not re.fullmatch(field_pattern(placed.kind, placed.field), value):
                odd_field(placed, value, self.number, expected(placed.kind, placed.field), self.findings)

    # --- the end

    def _end(self, rules: Rules, line: bytes) -> None:
        self._digest_pending()
        add = self.findings.add

        def say(field: str, rule: str, says: str) -> None:
            add("rule", rule, says, field=field)

        if not line:
            self._truncated(rules)
        else:
            body = self._take(line)
            self.whole = self.digest.copy()
            self.whole.update(line)
            if len(body) < TRAILER_LENGTH and body is line:
                self.cut = True
                self._truncated(rules)
            else:
                if body is line:
                    add(
                        "final-crlf",
                        "CRLF is missing after the trailer",
                        "CRLF after every line",
                        line=self.number,
                        column=91,
                    )
                self._trailer(body, rules)
            if rest := self.stream.read(PEEK_BYTES):
                self.mended = True
                after_trailer(rest, self.number + 1, self.findings)
        if self.bare_ends:
            add(
                "line-end",
                f"{self.bare_ends} lines end with LF alone",
                "CRLF: it went through a transfer in text mode, or an editor",
            )
        if not self.cut:
            rules.end(say, self.findings.notes.append)

    def _truncated(self, rules: Rules) -> None:
        self.cut = True
        self.mended = True
        said = self.header.get("count")
        whole = (
            f"{self.count} whole detail lines of {int(said)}" if said else f"{self.count} whole detail lines"
        )
        self.findings.add(
            "truncated",
            f"the file ends early: {whole}",
            "a trailer at the end; fetch it again",
            line=self.number + 1,
        )

    def _trailer(self, body: bytes, rules: Rules) -> None:
        trailer = read_trailer(body, self.kind, self.number, self.findings)
        if trailer is None:
            return
        read = Read(self.header, self.count, self.total, rules.layout.total, self.digest.hexdigest().upper())
        if compare(read, trailer, self.number, self.findings) and self.mended:
            self.findings.notes.append(
                "with that put right the digest is that of the trailer: nothing else was changed"
            )
