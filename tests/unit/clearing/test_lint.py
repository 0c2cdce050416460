"""The stand-alone checker: it finds what is wrong, says where, and knows the usual accidents."""

import base64
import json
import subprocess
import sys
import tracemalloc
from hashlib import new as new_digest
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from switch.clearing.layouts import LAYOUTS
from switch.clearing.lint import Fault, Report, lint_file
from switch.clearing.lint.__main__ import main
from switch.clearing.lint.sm2 import read_public_key, verify
from switch.keys import sm2
from switch.operations.commands.files import app as files
from tests.helpers.clearing_samples import file_of, values_of

KINDS = list(LAYOUTS)


def lint(folder: Path, name: str, content: bytes, **options: Any) -> Report:
    path = folder / name
    path.write_bytes(content)
    return lint_file(path, **options)


def ok_of(name: str, content: bytes) -> str:
    return f"{new_digest('sm3', content).hexdigest().upper()}  {name}\n"


def codes(report: Report) -> list[str]:
    return [fault.code for fault in report.faults]


def resigned(content: bytes) -> bytes:
    """The same with a digest that fits."""
    lines = content.splitlines(keepends=True)
    body = b"".join(lines[:-1])
    return body + lines[-1][:26] + new_digest("sm3", body).hexdigest().upper().encode() + b"\r\n"


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_file_has_no_fault(kind: str, tmp_path: Path) -> None:
    name, content = file_of(kind)
    (tmp_path / f"{name}.ok").write_text(ok_of(name, content), encoding="ascii")
    report = lint(tmp_path, name, content)
    assert (report.faults, report.notes, report.lines) == ((), (), 3)
    (tmp_path / f"{name}.ok").unlink()
    assert lint(tmp_path, *file_of(kind, [])).good is (kind != "BI")


def test_importing_it_needs_nothing_but_the_standard_library() -> None:
    script = (
        "import sys, switch.clearing.lint, switch.clearing.lint.__main__\n"
        "wrong = {'psycopg', 'pydantic', 'cryptography', 'gmssl_pyx', 'typer', 'numpy', 'orjson', 'structlog'} & sys.modules.keys()\n"
        "sys.exit(f'imported: {wrong}' if wrong else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def changed(kind: str, old: bytes, new: bytes) -> tuple[str, bytes]:
    name, content = file_of(kind)
    assert old in content
    return name, content.replace(old, new, 1)


#  kind, old and new bytes, the code of the first fault, its line, column and field, words of the rule
CHANGES = [
    ("NS", b"HNS01", b"HNS02", "header", 1, 4, "version", "cannot be"),
    ("NS", b"20240315233000", b"20240315256000", "header", 1, 33, "created", "not a time"),
    ("NS", b"0000300000000", b"0000 00000000", "header", 1, 47, "count", "spaces in a number"),
    ("NS", b"0063       ", b"0064       ", "header", 1, 70, "line_length", "type's line length"),
    ("NS", b"99990000", b"99990001", "name-header", 1, 6, "sender", "name and header differ"),
    ("NS", b"D00000002", b"D0000 002", "field", 3, 6, "line_no", "spaces in a number"),
    ("NS", b"D00000002", b"D00000005", "line-missing", 3, 2, "line_no", "3 lines are missing"),
    ("NS", b"D00000002", b"D00000001", "line-order", 3, 2, "line_no", "stands twice"),
    ("NS", b"00\r\nD00000003", b"09\r\nD00000003", "field", 3, 62, "status", "cannot be"),
    ("NS", b"\r\nD00000002", b"\r\nD00000002 ", "line-length", 3, 64, "", "1 characters too long"),
    ("NS", b"\r\nD00000002", b"\r\n\r\nD00000002", "line-empty", 3, 1, "", "empty line"),
    ("NS", b"\r\nD00000002X", b"\r\nD0000000\xb6\xfe", "encoding", 3, 9, "", "GBK"),
    ("NS", b"\r\nD00000002X", "\r\nD0000000é".encode(), "encoding", 3, 9, "", "UTF-8"),
    ("NS", b"TNS", b"tNS", "trailer", 5, 1, "mark", "cannot be"),
    ("NS", b"TNS00000003", b"TNS00000004", "count-differs", 5, 4, "count", "header and trailer differ"),
    ("NS", b"000000000000200", b"000000000000300", "total", 1, 55, "total", "100 fen more"),
    ("MR", b"C000000000000200D", b"+000000000000200D", "field", 3, 79, "amount", "no sign letter"),
    ("MR", b"C000000000000198", b"X000000000000198", "field", 3, 111, "net", "neither C nor D"),
    ("XF", b"0001010313350010000", b"0001010313350010oo0", "field", 2, 32, "record", "not a hex digit"),
    ("CM", b"3133500100000001239 ", b"31335001000000012x9 ", "field", 2, 44, "pan", "cannot be"),
    ("CM", b"A00200 99993350", b"A00200x99993350", "field", 2, 167, "spaces", "where a space must be"),
    ("ER", b"3133500100000001239 ", b"31335001000000012x9 ", "field", 2, 70, "pan", "cannot be"),
    ("ER", b"0315081530", b"0230081530", "rule", 2, 59, "transmitted_at", "not a day"),
]


@pytest.mark.parametrize(("kind", "old", "new", "code", "line", "column", "field", "rule"), CHANGES)
def test_a_fault_has_its_place_and_its_rule(
    kind: str,
    old: bytes,
    new: bytes,
    code: str,
    line: int,
    column: int,
    field: str,
    rule: str,
    tmp_path: Path,
) -> None:
    name, content = changed(kind, old, new)
    first = lint(tmp_path, name, content).faults[0]
    assert (first.code, first.line, first.column, first.field) == (code, line, column, field), first
    assert rule in first.rule


#  kind, changed values of the second line, the field that is named, words of the rule; count, total and digest are right
RULES: list[tuple[str, dict[str, Any], str, str]] = [
    ("MR", {"net": 197}, "net", "does not add up"),
    ("MR", {"fee": 2, "net": 202}, "fee", "sign of the amount"),
    ("MR", {"clearing_date": "20240316"}, "clearing_date", "not the clearing date"),
    ("MR", {"date": "20230229"}, "date", "not a day of the calendar"),
    ("QS", {"net": 1106}, "net", "does not add up"),
    ("QS", {"settlement_date": "20240315"}, "settlement_date", "not after"),
    ("NP", {"net": 5}, "net", "does not add up"),
    ("NP", {"institution": "99993311"}, "institution", "stands twice"),
    ("NP", {"issuing": -499, "net": 7}, "issuing", "differ by 1 fen"),
    ("NP", {"issuing_count": 3}, "issuing_count", "not as many"),
    ("TR", {"full_fare": 1}, "full_fare", "does not add up"),
    ("TR", {"maximum": 1201}, "maximum", "above the amount"),
    ("TR", {"open_count": 3}, "open_count", "above the entry count"),
    ("SS", {"source_line": 0}, "source_line", "zero"),
    ("SS", {"decided_on": "20240314"}, "decided_on", "not the clearing date"),
    ("CM", {"fee_payable": -2001}, "fee_payable", "above the amount"),
    ("CM", {"partial_amount": 2001}, "partial_amount", "above the amount"),
    ("CM", {"original_at": "0230081530"}, "original_at", "not a day"),
    ("DT", {"result_date": "20240230"}, "result_date", "not a day of the calendar"),
    ("BF", {"operation": "D"}, "operation", "D in a full list"),
    ("BF", {"operation": "V"}, "operation", "V in a full list"),
    ("BF", {"asn": "03133500100000000001"}, "asn", "stands twice"),
    ("BI", {"operation": "V"}, "operation", "below the first line"),
    ("BI", {"asn": "13133500100000000001"}, "asn", "does not begin with 0"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "changes", "field", "rule"), RULES)
def test_what_does_not_fit_together_is_named_though_count_total_and_digest_agree(
    kind: str, changes: dict[str, Any], field: str, rule: str, tmp_path: Path
) -> None:
    (fault,) = lint(tmp_path, *file_of(kind, changes=changes)).faults
    assert (fault.code, fault.field) == ("rule", field)
    assert rule in fault.rule


@pytest.mark.parametrize("date", ["00010101", "99991231", "00000000"])
def test_a_terminals_clock_may_say_any_year(date: str, tmp_path: Path) -> None:
    assert lint(tmp_path, *file_of("SS", changes={"date": date})).faults == ()


def test_the_base_version_of_a_list_of_changes_comes_first_and_is_older(tmp_path: Path) -> None:
    lines = values_of("BI")
    lines[0]["asn"] = "7".zfill(20)
    assert "base version not below" in lint(tmp_path, *file_of("BI", lines)).faults[0].rule
    lines[0] |= {"operation": "A", "asn": "03133500100000000009"}
    assert "base version is missing" in lint(tmp_path, *file_of("BI", lines)).faults[0].rule


def test_accidents_are_called_by_their_names(tmp_path: Path) -> None:
    name, content = file_of("MR")
    lines = content.splitlines(keepends=True)
    mended = "with that put right the digest is that of the trailer"
    for spoilt, code, words, nothing_else in [
        (b"\xef\xbb\xbf" + content, "bom", "byte-order mark", True),
        (content.replace(b"\r\n", b"\n"), "line-end", "5 lines end with LF alone", True),
        (content.replace(b"\r\n", b"\r"), "line-end", "CR alone", False),
        (content.decode().encode("utf-16"), "encoding", "UTF-16 (little-endian)", False),
        (content.decode().encode("utf-16-be"), "encoding", "UTF-16 without", False),
        (b"\x1f\x8b\x08" + content, "packed", "gzip", False),
        (b"", "empty", "empty", False),
        (content[:-2], "final-crlf", "CRLF is missing", False),
        (content + b"\x1a", "after-trailer", "old editors", False),
        (content + b"\r\n", "after-trailer", "empty lines", False),
        (content + content, "after-trailer", "another file", False),
        (content[: len(content) // 2], "truncated", "1 whole detail lines of 3", False),
        (content[:-30], "truncated", "3 whole detail lines of 3", False),
        (b"".join(lines[:-1]), "truncated", "3 whole detail lines of 3", False),
        (b"".join(lines[1:]), "header", "the header is missing", False),
    ]:
        report = lint(tmp_path, name, spoilt)
        assert code in codes(report), (code, report)
        assert words in next(fault.rule for fault in report.faults if fault.code == code)
        assert any(mended in note for note in report.notes) is nothing_else, report


def test_a_missing_line_is_counted_and_its_amount_named(tmp_path: Path) -> None:
    name, content = file_of("CM")
    lines = content.splitlines(keepends=True)
    report = lint(tmp_path, name, b"".join(lines[:2] + lines[3:]))
    assert codes(report) == ["count", "digest"]
    assert "1 line missing, of 2000 fen together" in report.faults[0].rule
    report = lint(tmp_path, name, b"".join([*lines[:3], lines[2], *lines[3:]]))
    assert "1 line too many, of 2000 fen together" in report.faults[0].rule


def test_one_changed_byte_that_no_rule_sees_is_told_by_the_digest_alone(tmp_path: Path) -> None:
    report = lint(tmp_path, *changed("MR", b"407508000004", b"407508000005"))
    assert codes(report) == ["digest"]
    assert "a byte was changed" in report.faults[0].expected
    name, content = changed("MR", b"407508000004", b"407508000005")
    assert lint(tmp_path, name, resigned(content)).good


def test_faults_are_counted_beyond_those_that_are_shown(tmp_path: Path) -> None:
    name, content = file_of("NS", values_of("NS", 500))
    spoilt = content.replace(b"99990000202403", b"9999 000202403").replace(
        b"HNS019999 000", b"HNS0199990000", 1
    )
    report = lint(tmp_path, name, spoilt, most=7)
    assert len(report.faults) == 7
    assert report.fault_count == 501  # and the digest
    assert report.lines == 500


def test_memory_does_not_grow_with_the_file_or_with_its_faults(tmp_path: Path) -> None:
    name, content = file_of("NS", values_of("NS", 20_000))
    for spoilt in (content, content.replace(b"D0", b"E0"), content.replace(b"\r\n", b"")):
        (tmp_path / name).write_bytes(spoilt)
        tracemalloc.start()
        lint_file(tmp_path / name)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2_600_000, peak  # a buffer of 1 MiB, and the lines that are digested together


def test_the_mark_of_completeness_is_compared(tmp_path: Path) -> None:
    name, content = file_of("QS")
    (tmp_path / f"{name}.ok").write_text(ok_of(name, content + b"x"), encoding="ascii")
    assert "digest in it is not the file's" in lint(tmp_path, name, content).faults[0].rule
    (tmp_path / f"{name}.ok").write_text("done\n", encoding="ascii")
    assert "not a digest and a name" in lint(tmp_path, name, content).faults[0].rule


def test_a_wrong_name_is_said_and_the_content_is_checked_all_the_same(tmp_path: Path) -> None:
    name, content = file_of("QS")
    assert codes(lint(tmp_path, f"{name}.txt", content)) == ["name"]
    assert codes(lint(tmp_path, f"{name}.tmp", content)) == ["name"]
    assert codes(lint(tmp_path, name.replace("QS", "NS"), content)) == ["name-header"]
    assert codes(lint_file(tmp_path / "gone")) == ["name", "unreadable"]


def test_a_signature_is_checked_with_plain_arithmetic(tmp_path: Path) -> None:
    name, content = file_of("QS")
    pair, other = sm2.generate(), sm2.generate()
    message = new_digest("sm3", content).digest()
    der = sm2.to_der(sm2.sign(pair, message))
    (tmp_path / f"{name}.sig").write_bytes(der)
    assert lint(tmp_path, name, content, keys=[other.public, pair.public]).good
    assert codes(lint(tmp_path, name, content, keys=[other.public])) == ["signature"]
    assert any("not checked" in note for note in lint(tmp_path, name, content).notes)
    for at in range(len(der)):
        assert not verify(pair.public, message, der[:at] + bytes([der[at] ^ 1]) + der[at + 1 :]), at
        assert not verify(pair.public, message, der[:at])
    (tmp_path / f"{name}.sig").unlink()
    assert codes(lint(tmp_path, name, content, keys=[pair.public])) == ["signature"]


def test_public_keys_are_read_as_pem_and_hex_and_nothing_else() -> None:
    pair = sm2.generate()
    spki = bytes.fromhex("3059301306072A8648CE3D020106082A811CCF5501822D034200") + pair.public
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.encodebytes(spki) + b"-----END PUBLIC KEY-----\n"
    for form in (pem, spki, pair.public.hex().encode() + b"\n", pair.public):
        assert read_public_key(form) == pair.public
    beside = pair.public[:-1] + bytes([pair.public[-1] ^ 1])
    for wrong in (b"", b"04", pem[:60], beside, b"05" + pair.public.hex().encode()[2:]):
        with pytest.raises(ValueError, match="key"):
            read_public_key(wrong)


def test_the_command_says_it_in_words_and_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, content = file_of("CM")
    (tmp_path / name).write_bytes(content)
    assert main([str(tmp_path / name)]) == 0
    assert "CM, 3 lines, 60.00: good" in capsys.readouterr().out
    (tmp_path / name).write_bytes(content.replace(b"0315081530", b"03150815x0", 1))
    assert main(["--json", "--faults", "1", str(tmp_path / name)]) == 1
    (document,) = json.loads(capsys.readouterr().out)
    assert (document["ok"], document["fault_count"]) == (False, 2)
    assert Fault(**document["faults"][0]).column == 41
    assert "3133500100000001239" not in json.dumps(document)
    assert main([str(tmp_path / name)]) == 1
    for wrong in ([], ["--key", str(tmp_path / name), str(tmp_path / name)], ["--faults", "0", "x"]):
        with pytest.raises(SystemExit) as ended:
            main(wrong)
        assert ended.value.code == 2


def test_the_switch_has_the_same_command_and_it_asks_for_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CARDSWITCH_NO__SUCH_SETTING", "1")  # would stop whoever reads the settings
    name, content = file_of("NP")
    (tmp_path / name).write_bytes(content)
    runner = CliRunner()
    assert runner.invoke(files, ["lint", str(tmp_path / name)]).exit_code == 0
    (tmp_path / name).write_bytes(content[:-2])
    done = runner.invoke(files, ["lint", "--json", str(tmp_path / name)])
    assert done.exit_code == 1
    assert json.loads(done.stdout)[0]["faults"][0]["code"] == "final-crlf"
    wrong = runner.invoke(files, ["lint", "--key", str(tmp_path / name), str(tmp_path / name)])
    assert wrong.exit_code == 2
