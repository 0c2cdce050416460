"""The tree against its definition, written out again with another SM3, and against the openssl command line."""

import re
import shutil
import subprocess
from hashlib import new as new_digest
from pathlib import Path

import pytest

from switch.clearing.evidence.merkle import (
    EMPTY_ROOT,
    PathRefused,
    leaf_hash,
    leaf_hashes,
    path_of,
    root_by_path,
    root_of,
)


def sm3(content: bytes) -> bytes:
    return new_digest("sm3", content).digest()


def openssl_sm3(content: bytes) -> bytes:
    program = shutil.which("openssl")
    assert program is not None, "these tests need the openssl command line"
    done = subprocess.run(
        [program, "dgst", "-sm3", "-binary"], input=content, capture_output=True, check=True
    )
    return done.stdout


def by_definition(contents: list[bytes], digest=sm3) -> bytes:  # type: ignore[no-untyped-def]
    """RFC 6962, section 2.1, word for word."""
    if not contents:
        return digest(b"")
    if len(contents) == 1:
        return digest(b"\x00" + contents[0])
    k = 1
    while k * 2 < len(contents):
        k *= 2
    return digest(b"\x01" + by_definition(contents[:k], digest) + by_definition(contents[k:], digest))


def contents_of(count: int) -> list[bytes]:
    return [f"leaf {number}".encode() for number in range(count)]


def test_the_root_is_that_of_the_definition_for_every_size_up_to_seventy() -> None:
    for count in range(71):
        contents = contents_of(count)
        assert root_of(leaf_hashes(contents)) == by_definition(contents)


def test_roots_of_whole_blocks_can_stand_for_their_leaves() -> None:
    for count in range(1, 50):
        hashes = leaf_hashes(contents_of(count))
        assert root_of([root_of(hashes[at : at + 8]) for at in range(0, count, 8)]) == root_of(hashes)


def test_every_leaf_of_every_small_tree_leads_to_the_root_and_no_other_place_does() -> None:
    for count in range(1, 20):
        hashes = leaf_hashes(contents_of(count))
        root = root_of(hashes)
        for index in range(count):
            path = path_of(hashes, index)
            assert root_by_path(index, count, hashes[index], path) == root
            for wrong in {0, index - 1, index + 1, count - 1} - {index}:
                try:
                    assert root_by_path(wrong, count, hashes[index], path) != root
                except PathRefused:
                    continue


def test_a_path_that_is_longer_shorter_or_of_another_size_is_refused() -> None:
    hashes = leaf_hashes(contents_of(11))
    path = path_of(hashes, 4)
    for index, size, wrong in [
        (4, 11, path[:-1]),
        (4, 11, [*path, path[0]]),
        (4, 3, path),
        (11, 11, path),
        (-1, 11, path),
        (0, 1, path),
    ]:
        with pytest.raises(PathRefused):
            root_by_path(index, size, hashes[4], wrong)


def test_a_node_cannot_pass_for_a_leaf() -> None:
    left, right = leaf_hashes([b"a", b"b"])
    assert leaf_hash(left + right) != root_of([left, right])


def test_small_known_answers_are_those_of_the_openssl_command_line() -> None:
    assert openssl_sm3(b"") == EMPTY_ROOT
    contents = [b"a", b"b", b"c"]
    assert root_of(leaf_hashes(contents)) == by_definition(contents, openssl_sm3)


def test_the_known_answers_in_the_document_are_those_of_the_openssl_command_line() -> None:
    document = (Path(__file__).parents[4] / "docs" / "evidence.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (none|`a`.*?) \| `([0-9A-F]{64})` \|$", document, re.MULTILINE)
    assert len(rows) == 4
    for leaves, root in rows:
        contents = [letter.encode() for letter in re.findall("`(.)`", leaves)]
        assert by_definition(contents, openssl_sm3).hex().upper() == root
