"""MACs and PIN blocks against psec, an independent payments library, for arbitrary keys and data."""

import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys.macs import mac_engine
from switch.keys.pin_blocks import clear_block
from switch.keys.primitives import Algorithm, MacKey, kcv_of

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it imports 3DES from where it used to be
    from psec import des, mac, pinblock

pytestmark = pytest.mark.filterwarnings("ignore")  # and uses it with short keys
keys = st.binary(min_size=16, max_size=16)


@settings(max_examples=60)
@given(keys, st.binary(min_size=1, max_size=300))
def test_x919_is_the_retail_mac_with_padding_one(key, data):
    ours = mac_engine(3, MacKey(key, Algorithm.TDES)).field64(data)
    assert ours == mac.generate_retail_mac(key[:8], key[8:], data, 1)


@settings(max_examples=60)
@given(keys, st.binary(min_size=1, max_size=300))
def test_x99_is_a_plain_des_cbc_mac(key, data):
    ours = mac_engine(2, MacKey(key, Algorithm.TDES)).field64(data)
    assert ours == mac.generate_cbc_mac(key[:8], data, 1)


@settings(max_examples=60)
@given(st.text("0123456789", min_size=4, max_size=12), st.text("0123456789", min_size=13, max_size=19))
def test_format_0_is_format_0(pin, pan):
    assert clear_block(pin, PinFormat.ISO_0, CardNumber(pan)) == pinblock.encode_pinblock_iso_0(pin, pan)


@settings(max_examples=60)
@given(keys)
def test_check_values_agree(key):
    assert kcv_of(key, Algorithm.TDES) == des.generate_kcv(key, 4)
