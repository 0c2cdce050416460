import pytest

from switch.domain.errors import FormatError
from switch.messages.hot_list import HotListBlock, HotListEntry, applies, apply_blocks, pack_block, read_block

FIRST, SECOND = "03133500100000045673", "03133500100000890128"
BLOCK = HotListBlock(True, "F", 0, 41, 1, (HotListEntry("A", FIRST, 1), HotListEntry("A", SECOND, 0)))


def test_a_block_reads_back_as_it_was_packed():
    assert read_block(pack_block(BLOCK)) == BLOCK
    assert len(pack_block(BLOCK)) == 25 + 2 * 12


def test_a_full_list_replaces_and_an_increment_changes_what_is_held():
    held = {SECOND: 1, "0" * 20: 0}
    assert apply_blocks(held, [BLOCK]) == {FIRST: 1, SECOND: 0}
    step = HotListBlock(False, "I", 41, 42, 1, (HotListEntry("D", SECOND, 0), HotListEntry("D", "9" * 20, 0)))
    assert apply_blocks(held, [step]) == {"0" * 20: 0}
    assert apply_blocks(held, []) == held


def test_blocks_of_one_full_download_add_up():
    second = BLOCK._replace(more=False, block_no=2, entries=(HotListEntry("A", "0" * 20, 0),))
    assert set(apply_blocks({}, [BLOCK, second])) == {FIRST, SECOND, "0" * 20}


def test_an_increment_on_another_version_does_not_apply():
    step = HotListBlock(False, "I", 41, 42, 1, ())
    assert applies(step, 41)
    assert not applies(step, 40)
    assert applies(BLOCK, 7)


@pytest.mark.parametrize("size", [0, 24, 26, 48, 50, 61])
def test_blocks_of_another_length_are_refused(size):
    with pytest.raises(FormatError):
        read_block((pack_block(BLOCK) + bytes(20))[:size])


@pytest.mark.parametrize(
    ("place", "value"),
    [(0, b"2"), (1, b"X"), (5, b"A"), (5, b"\xff"), (25, b"B"), (30, b"\xaa"), (36, b"\x02")],
)
def test_bytes_that_break_a_rule_are_refused(place, value):
    raw = pack_block(BLOCK)
    with pytest.raises(FormatError):
        read_block(raw[:place] + value + raw[place + 1 :])


def test_what_does_not_fit_a_block_is_not_packed():
    for wrong in (BLOCK._replace(version=10**8), BLOCK._replace(entries=BLOCK.entries * 21)):
        with pytest.raises(ValueError, match="at most 40"):
            pack_block(wrong)


def test_entries_are_shown_masked():
    assert FIRST not in repr(BLOCK)
