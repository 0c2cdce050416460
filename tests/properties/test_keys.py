"""Properties of the keys room that hold for any input."""

from hypothesis import given, settings
from hypothesis import strategies as st

from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys.macs import cbc_chain, xor_of_blocks
from switch.keys.pin_blocks import PinBlockError, clear_block, read_clear_block
from switch.keys.primitives import Algorithm, cbc_encryptor

KEY = bytes.fromhex("3228C4DBDC6E04C0A1B7FC96CFFE4030")
algorithms = st.sampled_from(list(Algorithm))
cards = st.text("0123456789", min_size=13, max_size=19).map(CardNumber)
formats = st.sampled_from(list(PinFormat))


@given(algorithms, st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=12))
def test_a_continued_context_equals_a_fresh_one_for_every_message(algorithm, messages):
    size = algorithm.block_bytes
    last_block = cbc_chain(KEY, algorithm)
    for message in messages:
        padded = message + bytes(-len(message) % size)
        assert last_block(message) == cbc_encryptor(KEY, algorithm).update(padded)[-size:]


@given(st.binary(min_size=1, max_size=2048), st.sampled_from([8, 16]))
def test_folding_equals_the_xor_of_all_blocks(data, size):
    padded = data + bytes(-len(data) % size)
    expected = 0
    for start in range(0, len(padded), size):
        expected ^= int.from_bytes(padded[start : start + size])
    assert xor_of_blocks(data, size) == expected


@given(st.text("0123456789", min_size=4, max_size=12), formats, cards)
def test_every_pin_reads_back(pin, pin_format, card):
    assert read_clear_block(clear_block(pin, pin_format, card), pin_format, card) == pin


@settings(max_examples=300)
@given(
    st.binary(max_size=20) | st.binary(min_size=8, max_size=8) | st.binary(min_size=16, max_size=16),
    formats,
    cards,
)
def test_noise_is_a_pin_or_a_pin_block_error_and_what_is_read_lays_out_to_the_same_block(
    block, pin_format, card
):
    try:
        pin = read_clear_block(block, pin_format, card)
    except PinBlockError:
        return
    assert clear_block(pin, pin_format, card) == block
