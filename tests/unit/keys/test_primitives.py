import pickle

import pytest

from switch.keys.primitives import (
    Algorithm,
    BlockCipher,
    MacKey,
    PinKey,
    SessionKey,
    algorithm_named,
    kcv,
    odd_parity,
    random_key,
    sm3,
)

KEY = bytes.fromhex("0123456789ABCDEFFEDCBA9876543210")


def test_a_key_shows_its_purpose_and_check_value_and_nothing_of_itself():
    for text in (repr(PinKey(KEY, Algorithm.SM4)), str(PinKey(KEY, Algorithm.SM4))):
        assert text == f"<PIN key, SM4, KCV {kcv(PinKey(KEY, Algorithm.SM4)).hex().upper()}>"
        assert KEY.hex() not in text.lower()


def test_a_key_cannot_be_pickled():
    with pytest.raises(TypeError):
        pickle.dumps(MacKey(KEY, Algorithm.SM4))


@pytest.mark.parametrize("size", [0, 7, 8, 15, 17, 24, 32])
def test_keys_of_another_length_are_refused(size):
    with pytest.raises(ValueError, match="wrong length"):
        PinKey(bytes(size), Algorithm.TDES)


def test_single_des_is_for_mac_and_session_keys_in_3des_only():
    MacKey(KEY[:8], Algorithm.TDES)
    SessionKey(KEY[:8], Algorithm.TDES)
    with pytest.raises(ValueError, match="wrong length"):
        MacKey(KEY[:8], Algorithm.SM4)


def test_sm4_example_of_the_standard():
    assert BlockCipher(KEY, Algorithm.SM4).encrypt(KEY).hex() == "681edf34d206965e86b3e94f536e4246"


def test_single_des_is_triple_des_with_one_key():  # FIPS 81, ECB example
    cipher = BlockCipher(bytes.fromhex("0123456789ABCDEF"), Algorithm.TDES)
    assert cipher.encrypt(b"Now is t").hex() == "3fa40e8a984d4815"
    assert cipher.decrypt(bytes.fromhex("3fa40e8a984d4815")) == b"Now is t"


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_a_partial_block_is_refused_and_spoils_nothing(algorithm):
    cipher = BlockCipher(KEY, algorithm)
    block = bytes(algorithm.block_bytes)
    before = cipher.encrypt(block)
    for operation in (cipher.encrypt, cipher.decrypt):
        with pytest.raises(ValueError, match="whole number"):
            operation(block + b"x")
    assert cipher.encrypt(block) == before
    assert cipher.decrypt(before) == block


def test_drawn_3des_keys_have_odd_parity_and_two_halves():
    for _ in range(20):
        material = random_key(Algorithm.TDES)
        assert odd_parity(material) == material
        assert all(byte.bit_count() % 2 == 1 for byte in material)
        assert material[:8] != material[8:]
    assert len(random_key(Algorithm.SM4)) == 16


def test_algorithms_have_labels():
    assert [algorithm_named(algorithm.label) for algorithm in Algorithm] == list(Algorithm)
    with pytest.raises(ValueError, match="3DES or SM4"):
        algorithm_named("AES")


def test_sm3_example_of_the_standard():
    assert sm3(b"abc").hex().startswith("66c7f0f462eeedd9")
