"""Evidence: kept once under its digest, within its bounds, and never more than a case may have."""

from hashlib import new as new_digest
from pathlib import Path

import pytest

from switch.clearing.disputes.deciding import close
from switch.clearing.disputes.evidence import NOTE_MAX, Store, add_evidence, check_file, place_of
from switch.clearing.disputes.steps import ActionRefused
from switch.domain.errors import InputRefused
from tests.helpers.disputed import Disputes, asking

pytestmark = pytest.mark.server


async def test_a_file_is_kept_under_its_digest_and_what_breaks_a_bound_is_refused(
    town: Disputes, tmp_path: Path
) -> None:
    case_no = (await town.open(await town.buy(), asking("03"))).case_no
    store = Store(tmp_path / "evidence", 2, 100, 150)

    async def add(name: str, content: bytes, note: str = "the slip") -> None:
        path = tmp_path / name
        path.write_bytes(content)
        await add_evidence(town.pg, case_no, store, note=note, actor="li wei", path=path)

    await add("slip.pdf", b"%PDF-1.4 slip")
    sm3 = new_digest("sm3", b"%PDF-1.4 slip").digest()
    assert place_of(store.folder, sm3).read_bytes() == b"%PDF-1.4 slip"
    assert check_file(store.folder, sm3, 13) == ""
    for name, content, said in (
        ("slip.exe", b"MZ", "one of"),
        ("slip.pdf", b"\x89PNG", "does not begin like application/pdf"),
        ("slip.png", b"", "is empty"),
        ("slip.txt", bytes(101), "more than 100 bytes"),
    ):
        with pytest.raises(InputRefused, match=said):
            await add(name, content)
    with pytest.raises(ActionRefused, match="has this file"):
        await add("copy.pdf", b"%PDF-1.4 slip")
    await add("more.txt", b"x" * 100)
    with pytest.raises(InputRefused, match="more than 37 bytes"):
        await add("third.txt", b"y" * 38)
    with pytest.raises(ActionRefused, match="at most 2 files"):
        await add("third.txt", b"y")
    with pytest.raises(InputRefused, match="note"):
        await add_evidence(town.pg, case_no, store, note="x" * (NOTE_MAX + 1), actor="li wei")
    await add_evidence(town.pg, case_no, store, note="said by telephone", actor="li wei")
    await close(town.pg, case_no, actor="li wei", note="enough")
    with pytest.raises(ActionRefused, match="is CLOSED"):
        await add_evidence(town.pg, case_no, store, note="too late", actor="li wei")
    assert [path.name for path in store.folder.rglob("*.tmp")] == []
    rows = await town.rows("SELECT name, media_type, size_bytes FROM dispute_evidence ORDER BY seq")
    assert rows == [("slip.pdf", "application/pdf", 13), ("more.txt", "text/plain", 100), ("", "", None)]
    place_of(store.folder, sm3).write_bytes(b"%PDF-1.4 slit")
    assert check_file(store.folder, sm3, 13) == "changed"
