"""A day is sealed once, its transactions can be proven from one block, and what is changed afterwards is named."""

import errno
import itertools
from collections.abc import Callable
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms, close_day, day_folder
from switch.clearing.evidence import leaves, proving
from switch.clearing.evidence.leaves import BooksChanged, read_tree
from switch.clearing.evidence.merkle import EMPTY_ROOT, leaf_hash
from switch.clearing.evidence.proof import FIELDS, read_proof
from switch.clearing.evidence.proving import compare, find_reference, prove
from switch.clearing.evidence.seal_file import read_seal, seal_name
from switch.clearing.evidence.sealing import SealSigner, needed_seal, stored_seal
from switch.clearing.evidence.verify import examine, main, read_sealed
from switch.clearing.files import FileInMaking
from switch.domain.errors import InputRefused
from switch.domain.identifiers import CardNumber
from switch.keys.software_vault import SoftwareVault
from tests.helpers.clearing_day import OWN, add_records, record_96
from tests.unit.clearing.evidence.test_merkle import by_definition, sm3

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
RECORDS = 900_000  # their first entry number


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that some hundred leaves have many blocks and ranges."""
    monkeypatch.setattr(leaves, "BLOCK_LEAVES", 16)
    monkeypatch.setattr(leaves, "NUMBERS_WIDTH", 8)
    monkeypatch.setattr(leaves, "LEAVES_AT_ONCE", 50)


@pytest.fixture
def signing(terms: CloseTerms, tac_vault: SoftwareVault) -> CloseTerms:
    return terms._replace(signer=SealSigner(tac_vault))


@pytest.fixture
async def sealed_day(pg: Pg, day: date, signing: CloseTerms) -> date:
    """The open day with records and an entry that has two postings, closed and sealed."""
    await add_records(pg, day, RECORDS, 1, [("10", 200), ("04", 150), ("01", 70), ("10", 1)])
    await pg.execute(
        "INSERT INTO posting (shard, business_date, entry_no, line, debit_code, debit_owner, credit_code, credit_owner, amount_fen)"
        " SELECT shard, business_date, entry_no, 1, 1001, 0, 2001, account_id, 5 FROM journal WHERE business_date = %s"
        " ORDER BY entry_no LIMIT 40",
        (day,),
    )
    await close_day(pg, day, signing, "a tester")
    return day


def seal_path(terms: CloseTerms, day: date) -> Path:
    return day_folder(terms.folder, day) / seal_name(OWN, day)


async def all_leaves(pg: Pg, day: date) -> list[bytes]:
    """Every leaf, built here from rows: in the order of the tree."""
    secret = (await needed_seal(pg, day)).secret
    made = []

    def commitment(entry_no: int, shard: int, line: int, hidden: bytes) -> str:
        numbers = entry_no.to_bytes(8) + shard.to_bytes(2) + line.to_bytes(2)
        return sha256(sha256(secret + numbers).digest() + hidden).hexdigest()

    def masked(pan: str | None) -> str:
        return "" if pan is None else f"{pan[:6]}{'*' * (len(pan) - 10)}{pan[-4:]}"

    def said(value: object) -> str:
        return "" if value is None else str(value)

    cursor = await pg.execute(
        "SELECT coalesce(j.entry_no, p.entry_no), coalesce(j.shard, p.shard), coalesce(p.line, 0), p.debit_code, p.debit_owner,"
        " p.credit_code, p.credit_owner, p.amount_fen, j.kind, j.class, j.terminal_no, j.batch_no, j.stan, j.merchant_no, j.account_id,"
        " j.pan, j.amount_fen, j.effect_fen, j.answer, j.rrn, j.auth_code, j.entry_mode, j.decided_at::text, j.original_date,"
        " j.original_entry, j.extra, j.digest FROM (SELECT * FROM posting WHERE business_date = %(day)s) p"
        " FULL JOIN (SELECT *, 0 AS nought FROM journal WHERE business_date = %(day)s) j"
        " ON j.entry_no = p.entry_no AND j.shard = p.shard AND p.line = j.nought",
        {"day": day},
    )
    for row in await cursor.fetchall():
        *head, pan, amount, effect, answer, rrn, auth, mode, at, on, of, extra, digest = row
        hidden = (
            b""
            if digest is None
            else digest + (pan or "").encode() + b"\0" + (sha256(extra).digest() if extra else b"")
        )
        values = [
            *(
                "E",
                *head[:3],
                day,
                *head[3:],
                masked(pan),
                amount,
                effect,
                answer,
                rrn,
                auth,
                mode,
                at,
                on,
                of,
            ),
            *(extra and len(extra), commitment(*head[:3], hidden)),
        ]
        made.append((head[0], head[1], head[2], "\t".join(map(said, values))))
    cursor = await pg.execute(
        "SELECT entry_no, shard, result, card_no, card_digits(card), amount_fen, balance_fen, credit_code, credit_owner, psam, psam_serial,"
        " record_serial, atc, record_kind, happened_at::text, received_at::text, terminal_no, merchant_no, batch_no, original_date,"
        " original_entry, raw FROM purse_record WHERE business_date = %s",
        (day,),
    )
    for entry_no, shard, result, card_no, pan, *rest, raw in await cursor.fetchall():
        values = [
            *("R", entry_no, shard, 0, day, result, card_no, masked(pan), *rest),
            commitment(entry_no, shard, 0, raw),
        ]
        made.append((entry_no, shard, 0, "\t".join(map(said, values))))
    return [leaf.encode() for *_, leaf in sorted(made)]


async def test_the_root_is_over_every_entry_posting_and_record_in_the_documented_form(
    pg: Pg, sealed_day: date, signing: CloseTerms
) -> None:
    sealed = read_sealed(seal_path(signing, sealed_day))
    contents = await all_leaves(pg, sealed_day)
    rows = 457 + 4 + 40  # entries, records, second postings
    cursor = await pg.execute("SELECT count(*) FROM posting WHERE credit_code IN (6001, 2102)")
    fees = (await cursor.fetchone() or [0])[0]
    assert sealed.seal.leaves == len(contents) == rows + fees
    assert sealed.seal.root == by_definition(contents)
    assert not any(pan in leaf.decode() for leaf in contents for pan in ("31335001000000", "3133500100000"))
    names = {path.name for path in day_folder(signing.folder, sealed_day).iterdir()}
    assert {file.name for file in sealed.seal.files} == {
        name for name in names if not name.endswith((".ok", ".seal"))
    }
    assert f"{sealed.path.name}.ok" in names
    assert sealed.seal.before is None
    assert all(len(leaf.split(b"\t")) == len(FIELDS[leaf[:1].decode()]) for leaf in contents)


async def test_every_leaf_can_be_proven_and_a_changed_byte_of_a_proof_is_found(
    pg: Pg, sealed_day: date, signing: CloseTerms, tmp_path: Path
) -> None:
    sealed = read_sealed(seal_path(signing, sealed_day))
    assert sealed.seal.key is not None
    contents = await all_leaves(pg, sealed_day)
    numbers = list(dict.fromkeys(int(leaf.split(b"\t")[1]) for leaf in contents))
    places: list[int] = []
    for number in numbers[:60] + numbers[-12:]:
        proof, _ = await prove(pg, sealed_day, number)
        for entry in proof.entries:
            assert entry.root(sealed.seal.leaves) == sealed.seal.root
            assert entry.leaf.encode() == contents[entry.place]
            places.append(entry.place)
    assert places == [*range(len(places) - 12), *range(len(contents) - 12, len(contents))]
    with pytest.raises(InputRefused, match="has no entry 5"):
        await prove(pg, sealed_day, 5)
    path = tmp_path / "proof.json"
    proof, _ = await prove(pg, sealed_day, numbers[33])
    path.write_bytes(proof.packed())
    assert read_proof(path.read_bytes()) == proof
    key = sealed.seal.key.public.hex()
    trusted = [str(path), "--seal", str(sealed.path), "--key", key]
    assert main(trusted) == 0
    for at in range(0, len(proof.packed()), 11):
        changed = bytearray(proof.packed())
        changed[at] ^= 1
        if changed.split() == proof.packed().split():
            continue  # white space between the parts of a document says nothing
        path.write_bytes(changed)
        assert main(trusted) == 1, at


async def test_an_opened_proof_tells_the_right_card_from_others_and_a_closed_one_tells_nothing(
    pg: Pg, sealed_day: date, signing: CloseTerms, tmp_path: Path
) -> None:
    cursor = await pg.execute(
        "SELECT entry_no, pan FROM journal WHERE business_date = %s ORDER BY 1 LIMIT 1", (sealed_day,)
    )
    entry = await cursor.fetchone()
    assert entry is not None
    record = record_96(2, 1, 150, 1001, tac="FFFFFFFF")[6:16].hex()[1:]
    seal, path = seal_path(signing, sealed_day), tmp_path / "proof.json"
    for number, pan in (entry, (RECORDS + 1, record)):
        proof, _ = await prove(pg, sealed_day, number, opened=True)
        path.write_bytes(proof.packed())
        assert pan not in path.read_text()
        told = examine(path, seal, card=CardNumber(pan))
        assert f"is of the card {CardNumber(pan)}" in told[-1].text
        other = CardNumber(pan[:7] + str((int(pan[7]) + 1) % 10) + pan[8:])
        assert str(other) == str(CardNumber(pan))
        assert examine(path, seal, card=other)[-1].good is False
        path.write_bytes((await prove(pg, sealed_day, number))[0].packed())
        assert examine(path, seal, card=CardNumber(pan))[-1].good is None
    leaf = proof.entries[0].leaf.encode()
    assert leaf_hash(leaf) == sm3(b"\0" + leaf)


async def test_a_reference_leads_to_its_entry(pg: Pg, sealed_day: date) -> None:
    assert await find_reference(pg, sealed_day, f"{10_001:012d}") == [10_001]
    cursor = await pg.execute(
        "SELECT reference_of(entry_no, received_at) FROM purse_record WHERE entry_no = %s", (RECORDS,)
    )
    row = await cursor.fetchone()
    assert row is not None
    assert await find_reference(pg, sealed_day, row[0]) == [RECORDS]
    for wrong, words in (("999999999999", "nothing under that reference"), ("1", "twelve letters")):
        with pytest.raises(InputRefused, match=words):
            await find_reference(pg, sealed_day, wrong)


CHANGED_LATER = [
    ("UPDATE journal SET merchant_no = merchant_no + 1 WHERE entry_no = 10100", 10_100),
    ("UPDATE journal SET auth_code = 'A00002' WHERE entry_no = 10100", 10_100),
    ("UPDATE journal SET pan = overlay(pan PLACING '9' FROM 9) WHERE entry_no = 10100", 10_100),
    ("UPDATE journal SET auth_code = E'A\\t1' WHERE entry_no = 10100", 10_100),
    ("UPDATE posting SET credit_owner = 99 WHERE entry_no = 10100", 10_100),
    ("UPDATE purse_record SET raw = set_byte(raw, 95, 1) WHERE entry_no = 900002", 900_002),
    ("DELETE FROM purse_record WHERE entry_no = 900002", 900_002),
]


async def test_whatever_is_changed_after_the_seal_is_named_and_cannot_be_proven(
    pg: Pg, sealed_day: date
) -> None:
    sealed = await needed_seal(pg, sealed_day)
    assert await compare(pg, sealed_day, sealed, lambda *_: None) == []
    for change, entry_no in CHANGED_LATER:
        async with pg.transaction(force_rollback=True):
            await pg.execute("SET LOCAL session_replication_role = replica")
            await pg.execute(change.encode())
            differences = await compare(pg, sealed_day, sealed, lambda *_: None)
            assert differences, change
            assert f"rows of {sealed_day} were changed since it was sealed" in differences[0].text
            with pytest.raises(BooksChanged) as refused:
                await prove(pg, sealed_day, entry_no)
            assert str(refused.value) == differences[0].text
    async with pg.transaction(force_rollback=True):
        await pg.execute("SET LOCAL session_replication_role = replica")
        await pg.execute("UPDATE journal SET auth_code = E'A\n1' WHERE entry_no = 10100")
        with pytest.raises(BooksChanged, match="line feed"):
            await prove(pg, sealed_day, 10_100)


async def test_a_lost_seal_is_written_again_to_the_byte_and_the_next_day_follows_it(
    pg: Pg, sealed_day: date, signing: CloseTerms, contents: Callable[[Path], dict[str, bytes]]
) -> None:
    first = contents(signing.folder)
    path = seal_path(signing, sealed_day)
    path.unlink()
    assert (await close_day(pg, sealed_day, signing, "a tester")).rewritten == (path.name,)
    path.write_bytes(b"citizen-card-seal 1\n")
    path.with_name(f"{path.name}.ok").unlink()
    assert (await close_day(pg, sealed_day, signing, "a tester")).rewritten == (path.name,)
    assert contents(signing.folder) == first
    following = sealed_day + timedelta(days=1)
    await close_day(pg, following, signing._replace(signer=None), "a tester")
    empty = read_sealed(seal_path(signing, following))
    assert (empty.seal.leaves, empty.seal.root, empty.seal.key) == (0, EMPTY_ROOT, None)
    assert empty.seal.before is not None
    assert empty.seal.before == (sealed_day, read_sealed(path).sm3)
    assert [finding.good for finding in examine(None, empty.path, previous=path)] == [None, True]
    assert not [finding for finding in examine(None, None, folder=signing.folder) if finding.good is False]
    assert await read_tree(pg, following, b"") == ((), None, ())
    with pytest.raises(InputRefused, match="has no entry"):
        await prove(pg, following, 1)
    with pytest.raises(InputRefused, match="nothing under that reference"):
        await find_reference(pg, following, "000000000001")


async def test_a_broken_chain_a_changed_file_and_a_file_that_is_gone_are_named(
    pg: Pg, sealed_day: date, signing: CloseTerms
) -> None:
    days = [sealed_day + timedelta(days=number) for number in range(3)]
    for following in days[1:]:
        await close_day(pg, following, signing, "a tester")

    def wrong() -> list[str]:
        return [
            finding.text for finding in examine(None, None, folder=signing.folder) if finding.good is False
        ]

    assert wrong() == []
    middle = seal_path(signing, days[1])
    kept = middle.read_bytes()
    seal = read_seal(kept)
    middle.write_bytes(seal._replace(leaves=1).packed())
    assert wrong() == [
        f"the signature of {middle.name} is not that of the key in it: a byte of it was changed",
        f"the seal of {days[2]} does not follow that of {days[1]}: that file was changed",
    ]
    middle.unlink()
    assert wrong() == [f"the seal of {days[2]} does not follow that of {days[0]}: it names that of {days[1]}"]
    middle.write_bytes(kept)
    file = day_folder(signing.folder, days[0]) / read_sealed(seal_path(signing, days[0])).seal.files[1].name
    changed = bytearray(file.read_bytes())
    changed[500] ^= 1
    file.write_bytes(changed)
    assert len(wrong()) == 1
    assert wrong()[0].startswith(f"{file.name} is not the file that was sealed for {days[0]}")
    file.unlink()
    assert wrong() == [f"{file.name}: No such file or directory"]
    alone = examine(None, seal_path(signing, days[1]), folder=day_folder(signing.folder, days[1]))
    assert all(finding.good is not False for finding in alone)


async def test_the_tree_is_read_while_files_are_written_and_is_the_one_that_is_read_after_them(
    pg: Pg, day: date, signing: CloseTerms, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert signing.connect is not None
    links: list[Pg] = []

    async def linked() -> Pg:
        links.append(await signing.connect())
        return links[-1]

    async def refused() -> Pg:
        raise psycopg.OperationalError("too many connections")

    async def lost() -> Pg:
        async with await signing.connect() as other:
            link = await linked()
            await other.execute("SELECT pg_terminate_backend(%s, 60000)", (link.info.backend_pid,))
        return link

    def full(_file: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "a file")

    with monkeypatch.context() as patched:
        patched.setattr(FileInMaking, "finish", full)
        with pytest.raises(OSError, match="No space left"):
            await close_day(pg, day, signing._replace(connect=linked), "a tester")
    assert [link.closed for link in links] == [True], "whoever fails leaves nobody reading"
    # A second line that is not had, or does not last, costs time and not the close.
    await close_day(pg, day, signing._replace(connect=refused), "a tester")
    sealed = await needed_seal(pg, day)
    assert (await read_tree(pg, day, sealed.secret)).root == sealed.root
    assert await compare(pg, day, sealed, lambda *_: None) == []
    following = day + timedelta(days=1)
    await close_day(pg, following, signing._replace(connect=lost), "a tester")
    assert (await needed_seal(pg, following)).root == EMPTY_ROOT


async def test_a_seal_that_was_begun_keeps_its_secret_and_is_finished_by_the_next_run(
    pg: Pg, day: date, terms: CloseTerms, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        """As if the process had gone."""

    def dies(_builder: object, _content: bytes) -> int:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(leaves, "_hash_lines", dies)
        with pytest.raises(Killed):
            await close_day(pg, day, terms, "a tester")
    cursor = await pg.execute("SELECT secret, sm3 FROM clearing_seal")
    row = await cursor.fetchone()
    assert row is not None
    assert row[1] is None
    assert await stored_seal(pg, day) is None
    await close_day(pg, day, terms, "a tester")
    assert (await needed_seal(pg, day)).secret == row[0]
    sealed = read_sealed(seal_path(terms, day))
    assert examine(None, sealed.path)[0].text.startswith("nobody has signed the seal")


def test_numbers_of_a_reference_are_few_whatever_a_day_holds() -> None:
    assert proving.DIFFERENCES_MAX < 100
    assert len(list(itertools.islice(range(0, proving.NUMBER_MAX, 36**6), proving._NUMBERS_MAX))) == 64
