"""DES and SM4 over columns are the library's, for any number of keys."""

import secrets

import numpy as np
import pytest

from switch.keys import column_ciphers
from switch.keys.column_ciphers import cbc_macs
from switch.keys.derivation import card_key, issuer_key
from switch.keys.primitives import Algorithm, MasterKey, TacKey, cbc_encryptor
from switch.keys.purse import tac
from switch.keys.tac_columns import COLUMNS_FROM, TacColumns, verify_tac_columns

KEY_BYTES = {Algorithm.TDES: 8, Algorithm.SM4: 16}


def rows(count, width):
    return np.frombuffer(secrets.token_bytes(count * width), np.uint8).reshape(count, width)


@pytest.mark.parametrize(
    ("algorithm", "key", "plain", "cipher"),
    [
        # GB/T 32907-2016, A.1; and the worked example of J. O. Grabbe, "The DES Algorithm Illustrated".
        (Algorithm.SM4, "0123456789abcdeffedcba9876543210", "0123456789abcdeffedcba9876543210", "681edf34"),
        (Algorithm.TDES, "133457799bbcdff1", "0123456789abcdef", "85e81354"),
    ],
)
def test_published_blocks_come_out(algorithm, key, plain, cipher):
    (made,) = cbc_macs(
        algorithm,
        np.frombuffer(bytes.fromhex(key), np.uint8)[None],
        np.frombuffer(bytes.fromhex(plain), np.uint8)[None],
    )
    assert made.tobytes().hex() == cipher


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize(("count", "blocks"), [(1, 1), (2, 7), (300, 2), (5_000, 3)])
def test_random_keys_and_messages_give_what_the_library_gives(algorithm, count, blocks):
    size = algorithm.block_bytes
    keys, messages = rows(count, KEY_BYTES[algorithm]), rows(count, size * blocks)
    expected = [
        cbc_encryptor(key.tobytes(), algorithm).update(message.tobytes())[-size:][:4]
        for key, message in zip(keys, messages, strict=True)
    ]
    assert cbc_macs(algorithm, keys, messages).tobytes() == b"".join(expected)
    # Rows that do not lie one behind the other are the same rows.
    assert cbc_macs(algorithm, keys[::2], messages[::2]).tobytes() == b"".join(expected[::2])


@pytest.mark.parametrize("algorithm", Algorithm)
def test_ciphers_that_disagree_with_the_library_judge_nothing(algorithm, monkeypatch):
    column_ciphers._prove.cache_clear()
    monkeypatch.setattr(column_ciphers, "cbc_encryptor", lambda key, of: cbc_encryptor(bytes(len(key)), of))
    with pytest.raises(AssertionError, match="disagree"):
        cbc_macs(algorithm, rows(1, KEY_BYTES[algorithm]), rows(1, 32))


@pytest.mark.parametrize("count", [COLUMNS_FROM - 1, COLUMNS_FROM, 3 * COLUMNS_FROM])
@pytest.mark.parametrize("algorithm", Algorithm)
def test_many_tacs_of_one_issuer_are_good_and_bad_as_one_by_one(algorithm, count):
    issuer = issuer_key(MasterKey(bytes(range(16)), algorithm, "DTK"), bytes(8))
    diversifiers, inputs = rows(count, 8), rows(count, 22)
    tacs = np.frombuffer(
        b"".join(
            tac(card_key(issuer, diversifier.tobytes(), TacKey), data.tobytes())
            for diversifier, data in zip(diversifiers, inputs, strict=True)
        ),
        np.uint8,
    ).reshape(count, 4)
    group = np.tile(np.frombuffer(bytes([algorithm, 1]) + bytes(8), np.uint8), (count, 1))
    wrong = tacs.copy()
    wrong[::3, 3] ^= 1
    found = verify_tac_columns(TacColumns(group, diversifiers, inputs, wrong), lambda *_: issuer)
    assert found.tolist() == [place % 3 != 0 for place in range(count)]
    assert not verify_tac_columns(TacColumns(group, diversifiers, inputs, tacs), lambda *_: None).any()
