"""Files as bytes: what a receiver must refuse, and what a failing disk leaves behind."""

import io
import re
import resource
import subprocess
import sys
from datetime import date, datetime
from hashlib import new as new_digest
from pathlib import Path

import pytest

from switch.clearing.files import (
    FileInMaking,
    FileName,
    FileRefused,
    FolderError,
    Head,
    Written,
    check_file,
    digest_of,
    is_marked,
    mark_complete,
    parse_name,
    promised_digest,
    render,
)
from switch.clearing.layouts import LAYOUTS, write_line
from switch.domain.calendar import SHANGHAI

NAME = FileName("NS", "99990000", "99993350", date(2024, 3, 15))
HEAD = Head(NAME, datetime(2024, 3, 15, 23, 30, tzinfo=SHANGHAI), 2, 300)
SOURCE = "XF999933509999000020240315001"
LINES = [
    write_line(LAYOUTS["NS"], {"line_no": n, "file": SOURCE, "count": n, "amount": n * 100, "status": "00"})
    for n in (1, 2)
]
FILE = render(HEAD, LINES)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check(content: bytes, name: str = str(NAME)) -> Head:
    return check_file(name, io.BytesIO(content)).head


def with_digest(content: bytes) -> bytes:
    """The same file with a digest that fits, so that only the other rules can refuse it."""
    lines = content.splitlines(keepends=True)
    body = b"".join(lines[:-1])
    return body + lines[-1][:26] + new_digest("sm3", body).hexdigest().upper().encode() + b"\r\n"


def test_a_file_holds_what_its_header_says() -> None:
    seen: list[int] = []
    checked = check_file(str(NAME), io.BytesIO(FILE), lambda number, _values: seen.append(number))
    assert checked.head == HEAD
    assert checked.size == len(FILE)
    assert seen == [1, 2]


CHANGES = [  # what is changed (pattern, by what), status, rule
    (rb"HNS", b"HSS", "02", "header and file name differ"),
    (rb"HNS01", b"HNS02", "02", "version must be 01"),
    (rb"20240315233000", b"20240315253000", "02", "created is not a time"),
    (rb"0063       \r\n", b"0064       \r\n", "02", "detail line length is not the type's"),
    (rb"0063       \r\n", b"0063      x\r\n", "02", "created, count, amount and length must be digits"),
    (rb"(?s)(\r\nD.{62})\r\n", rb"\1 \r\n", "02", "detail line has the wrong length"),
    (rb"\r\nD00000002", b"\r\nD00000003", "02", "line numbers must count from 1"),
    (rb"\r\nD00000002[^\r]*", b"", "02", "count differs between header, lines and trailer"),
    (rb"000000000000200", b"000000000000201", "02", "total amount differs"),
    (rb"(TNS00000002000000000000)300", rb"\g<1>301", "02", "total amount differs"),
    (rb"\r\nTNS", b"\r\nTXX", "02", "neither a detail line nor a trailer"),
    (rb"\r\n$", b"\n", "02", "neither a detail line nor a trailer"),
    (rb"\r\n$", b"\r\nD", "02", "bytes after the trailer"),
]


@pytest.mark.parametrize(("old", "new", "status", "rule"), CHANGES)
def test_a_file_that_breaks_a_rule_is_refused_with_its_status(
    old: bytes, new: bytes, status: str, rule: str
) -> None:
    changed = re.sub(old, new, FILE, count=1)
    assert changed != FILE
    if rule != "bytes after the trailer" and changed.endswith(b"\r\n"):
        changed = with_digest(changed)
    with pytest.raises(FileRefused, match=rule) as refused:
        check(changed)
    assert refused.value.status == status


def test_a_wrong_digest_is_told_apart_from_wrong_content() -> None:
    changed = bytearray(FILE)
    changed[-3] = ord("0") if changed[-3] != ord("0") else ord("1")
    with pytest.raises(FileRefused, match="digest") as refused:
        check(bytes(changed))
    assert refused.value.status == "01"


@pytest.mark.parametrize("length", range(0, len(FILE), 7))
def test_a_file_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(FileRefused):
        check(FILE[:length])


@pytest.mark.parametrize(
    "name", ["", "NS", str(NAME) + "1", "ZZ" + str(NAME)[2:], str(NAME)[:20] + "1332" + str(NAME)[24:]]
)
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(FileRefused):
        parse_name(name)


def test_a_file_under_another_files_name_is_refused() -> None:
    with pytest.raises(FileRefused, match="header and file name differ"):
        check(FILE, str(NAME._replace(sequence=2)))


def write(folder: Path) -> Written:
    with FileInMaking(folder, HEAD) as file:
        for line in LINES:
            file.add(line.encode())
        return file.finish()


def test_a_file_gets_its_name_when_it_is_whole_and_its_mark_after_that(tmp_path: Path) -> None:
    written = write(tmp_path / "20240315")
    assert (tmp_path / "20240315" / str(NAME)).read_bytes() == FILE
    assert digest_of(tmp_path / "20240315" / str(NAME)) == (written.sm3, written.size)
    mark_complete(tmp_path / "20240315", [written])
    assert names_in(tmp_path / "20240315") == [str(NAME), f"{NAME}.ok"]
    mark = tmp_path / "20240315" / f"{NAME}.ok"
    assert mark.read_text() == f"{written.sm3}  {NAME}\n"
    path = tmp_path / "20240315" / str(NAME)
    assert is_marked(path, written.sm3)
    assert promised_digest(path) == written.sm3
    for torn in (b"", mark.read_bytes()[:-1], b"0" * 64 + b"  other\n"):
        mark.write_bytes(torn)
        assert not is_marked(path, written.sm3)
        assert promised_digest(path) == ""


def test_a_file_does_not_take_the_place_of_one_that_was_handed_out_with_other_content(tmp_path: Path) -> None:
    written = write(tmp_path)
    for promised, kept in ((written.sm3, False), ("0" * 64, True)):
        with FileInMaking(tmp_path, HEAD, promised=promised) as file:
            for line in LINES:
                file.add(line.encode())
            if kept:
                with pytest.raises(FolderError, match="was handed out with other content"):
                    file.finish()
            else:
                assert file.finish() == written
    assert names_in(tmp_path) == [str(NAME)]


def test_a_file_that_was_given_up_leaves_nothing_behind(tmp_path: Path) -> None:
    def interrupted() -> None:
        with FileInMaking(tmp_path, HEAD) as file:
            file.add(LINES[0].encode())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names_in(tmp_path) == []


def test_a_file_with_another_number_of_lines_than_planned_never_gets_its_name(tmp_path: Path) -> None:
    def too_few() -> None:
        with FileInMaking(tmp_path, HEAD) as file:
            file.add(LINES[0].encode())
            file.finish()

    with pytest.raises(AssertionError, match="1 lines where the day's figures say 2"):
        too_few()
    assert names_in(tmp_path) == []


BIG = """
import sys
from pathlib import Path
from tests.unit.clearing.test_files import fill
sys.exit(fill(Path(sys.argv[1])))
"""
BIG_LINES = 40_000


def fill(folder: Path) -> int:
    """Write a file of 2.6 MB; the exit status says how it ended. Run in a process of its own."""
    head = HEAD._replace(line_count=BIG_LINES)
    try:
        with FileInMaking(folder, head) as file:
            for _ in range(BIG_LINES):
                file.add(LINES[0].encode())
            file.finish()
    except FolderError as error:
        sys.stderr.write(str(error))
        return 7
    return 0


def _limit_file_size() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, 1_500_000))


def test_a_disk_that_refuses_says_so_and_leaves_nothing_and_the_next_run_completes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BIG, str(tmp_path)]
    limited = subprocess.run(
        command, preexec_fn=_limit_file_size, capture_output=True, text=True, check=False
    )
    assert limited.returncode == 7, limited.stderr
    assert "File too large. Nothing half-written was left; run the same command again" in limited.stderr
    assert names_in(tmp_path) == []
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert names_in(tmp_path) == [str(NAME)]


def test_a_full_file_system_leaves_nothing_and_the_next_run_completes(tmp_path: Path) -> None:
    """A tmpfs of 1 MB in a mount namespace of its own, where the system lets us have one."""
    script = (
        f"mount -t tmpfs -o size=1m tmpfs {tmp_path} || exit 77;"
        f"{sys.executable} -c '{BIG}' {tmp_path}; code=$?;"
        f'test -z "$(ls -A {tmp_path})" || exit 9; mount -o remount,size=16m {tmp_path};'
        f"{sys.executable} -c '{BIG}' {tmp_path} && exit $code"
    )
    command = ["unshare", "--mount", "--user", "--map-root-user", "bash", "-c", script]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no unshare")
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no mount namespaces here")
    assert done.returncode == 7, done.stderr
    assert "No space left on device" in done.stderr


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match=r"cannot write .*Not a directory"):
        FileInMaking(tmp_path / "file" / "20240315", HEAD)
