"""Checking without a database: what it imports, what it says, and what it does with bytes of strangers."""

import contextlib
import io
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switch.clearing.evidence.merkle import leaf_hashes, path_of, root_of
from switch.clearing.evidence.proof import FIELDS, Opening, Proof, ProofRefused, ProvenLeaf, read_proof
from switch.clearing.evidence.seal_file import Seal, SealRefused, digest_of_seal, read_seal
from switch.clearing.evidence.verify import examine, main, trusted_keys
from switch.domain.errors import InputRefused
from switch.domain.identifiers import CardNumber
from tests.unit.clearing.evidence.test_seal_file import PAIR, UNSIGNED, signed

LEAVES = ["\t".join(["R", str(n), "0", "0", "2026-11-26", *["7"] * 20]) for n in range(3)]
HASHES = leaf_hashes([leaf.encode() for leaf in LEAVES])
SEAL = signed(UNSIGNED._replace(root=root_of(HASHES), files=()))
PROOF = Proof(
    *("99993350", date(2026, 11, 26), 3, root_of(HASHES), digest_of_seal(SEAL.packed())),
    (ProvenLeaf(2, LEAVES[2], tuple(path_of(HASHES, 2))),),
)


def written(folder: Path, seal: Seal = SEAL, proof: Proof = PROOF) -> tuple[Path, Path]:
    (folder / "proof").write_bytes(proof.packed())
    (folder / "a.seal").write_bytes(seal.packed())
    return folder / "proof", folder / "a.seal"


def test_the_checker_needs_neither_database_nor_settings() -> None:
    code = (
        "import sys, switch.clearing.evidence.verify;"
        "print(sorted({'psycopg', 'pydantic', 'typer', 'yoyo', 'aiohttp', 'numpy', 'switch.settings', 'switch.storage'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_proven_and_what_is_not_is_said_in_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    proof, seal = written(tmp_path)
    assert main([str(proof), "--seal", str(seal)]) == 0
    said = capsys.readouterr().out
    assert "the seal of 2026-11-26 is signed by ESK/SM2/v1/local, check value" in said
    assert "note   whose key that is, the seal cannot say" in said
    assert (
        "ok     entry 2 is leaf 2 of the 3 that were sealed for 2026-11-26: offline record with result 7"
        in said
    )
    assert main([str(proof), "--seal", str(seal), "--key", PAIR.public.hex(":")]) == 0
    assert "that is the key you trust" in capsys.readouterr().out
    stranger = signed(UNSIGNED).key
    assert stranger is not None
    other = bytearray(stranger.public)
    other[-1] ^= 1
    assert main([str(proof), "--seal", str(seal), "--key", other.hex()]) == 1
    assert "not by a key that you trust" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"institution": "99993310"}, "is that of another day or institution"),
        ({"day": date(2026, 11, 27)}, "is that of another day or institution"),
        ({"leaves": 4}, "the number of leaves in the proof is not the seal's"),
        ({"root": bytes(32)}, "the root in the proof is not the seal's"),
        ({"seal": "0" * 64}, "the digest of the seal in the proof is not the seal's"),
        ({"entries": (PROOF.entries[0]._replace(place=1),)}, "path is shorter"),
        ({"entries": (PROOF.entries[0]._replace(place=3),)}, "index must be below"),
        ({"entries": (PROOF.entries[0]._replace(path=()),)}, "path is shorter"),
        ({"entries": (PROOF.entries[0]._replace(path=(bytes(32),)),)}, "does not lead to the sealed root"),
        ({"entries": (PROOF.entries[0]._replace(leaf=LEAVES[1]),)}, "does not lead to the sealed root"),
    ],
)
def test_whatever_does_not_fit_is_named(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    proof, seal = written(tmp_path, proof=PROOF._replace(**changes))
    wrong = [finding.text for finding in examine(proof, seal) if finding.good is False]
    assert len(wrong) == 1
    assert words in wrong[0]


def test_a_seal_signed_by_somebody_else_over_the_same_day_is_not_the_proofs(tmp_path: Path) -> None:
    unsigned = SEAL._replace(key=None, signature=None)
    proof, seal = written(tmp_path, seal=unsigned)
    assert [finding.good for finding in examine(proof, seal)] == [None, False, True]
    assert examine(None, seal, keys=trusted_keys([PAIR.public.hex()]))[0].good is False


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a seal"),
        (["proof"], "a proof is checked against the seal"),
        (["--seal", "none"], "No such file"),
        (["--folder", "none"], "no such folder"),
        (["proof", "--seal", "proof"], "seal, line 1"),
        (["a.seal", "--seal", "a.seal"], "not readable as JSON"),
        (["--seal", "a.seal", "--key", "04AB"], "must be an SM2 public key"),
    ],
)
def test_what_cannot_be_read_is_said_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    written(tmp_path)
    full = [str(tmp_path / word) if word in ("proof", "a.seal", "none") else word for word in arguments]
    assert main(full) == 1
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_card_number_is_read_from_standard_input_and_never_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    proof, seal = written(tmp_path)
    for typed, status in (("3133500100000001239\n", 0), ("31335001000000x1239\n", 1)):
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert main([str(proof), "--seal", str(seal), "--card"]) == status
        captured = capsys.readouterr()
        assert typed.strip() not in captured.out + captured.err


@given(st.binary(max_size=400))
def test_noise_is_refused_and_nothing_else_happens(noise: bytes) -> None:
    with pytest.raises(SealRefused):
        read_seal(noise)
    with pytest.raises(ProofRefused):
        read_proof(noise)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["format", "institution", "day", "leaves", "root", "seal", "entries"]), JSON)
def test_a_proof_with_anything_in_the_place_of_a_field_is_refused_or_still_a_proof(
    name: str, value: Any
) -> None:
    document = json.loads(PROOF.packed()) | {name: value}
    with contextlib.suppress(ProofRefused):
        read_proof(json.dumps(document).encode())


@given(st.sampled_from(["index", "leaf", "path", "opening"]), JSON)
def test_an_entry_with_anything_in_it_is_refused_or_wrong(name: str, value: Any) -> None:
    document = json.loads(PROOF.packed())
    document["entries"][0][name] = value
    try:
        for entry in read_proof(json.dumps(document).encode()).entries:
            entry.fields()
            entry.root(3)
    except InputRefused:
        pass


@pytest.mark.parametrize("place", range(1, 25))
@pytest.mark.parametrize(
    "text", ["\x1b[2K\x1b[1Gok     that is the key you trust", "1\nok     all proven", "many"]
)
def test_what_a_stranger_wrote_is_never_said_as_our_own_words_and_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int, text: str
) -> None:
    values = LEAVES[0].split("\t")
    values[place] = text
    leaf = "\t".join(values)
    seal = UNSIGNED._replace(root=root_of(leaf_hashes([leaf.encode()])), leaves=1, files=())
    opening = Opening(bytes(32), record=bytes(96))
    proof = PROOF._replace(
        leaves=1,
        root=seal.root,
        seal=digest_of_seal(seal.packed()),
        entries=(ProvenLeaf(0, leaf, (), opening),),
    )
    paths = written(tmp_path, seal, proof)
    with contextlib.suppress(InputRefused):
        for finding in examine(*paths, card=CardNumber("9999331012345678901")):
            assert finding.text.isprintable()
    main([str(paths[0]), "--seal", str(paths[1])])
    said = capsys.readouterr()
    assert (said.out + said.err).replace("\n", "").isprintable()
    assert "\nok     all proven" not in said.out


def test_both_forms_of_a_leaf_end_with_a_commitment() -> None:
    assert {names[-1] for names in FIELDS.values()} == {"commitment"}
