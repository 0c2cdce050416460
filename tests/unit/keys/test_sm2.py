import pytest

from switch.keys import sm2

MESSAGE = b"a clearing file"


@pytest.fixture(scope="module")
def pair():
    return sm2.generate()


def test_a_signature_verifies_and_any_change_of_it_or_of_the_message_does_not(pair):
    signature = sm2.sign(pair, MESSAGE)
    assert len(signature) == sm2.SIGNATURE_BYTES
    assert sm2.verify(pair.public, MESSAGE, signature) is None
    changed = [
        (MESSAGE + b".", signature),
        (MESSAGE, signature[:-1] + bytes([signature[-1] ^ 1])),
        (MESSAGE, bytes(64)),
        (MESSAGE, b"\xff" * 64),
        (MESSAGE, signature[:63]),
        (MESSAGE, b""),
    ]
    for message, candidate in changed:
        with pytest.raises(sm2.Sm2Error):
            sm2.verify(pair.public, message, candidate)
    with pytest.raises(sm2.Sm2Error):
        sm2.verify(pair.public, MESSAGE, signature, b"another signer id")


def test_the_public_half_follows_from_the_private_half(pair):
    assert sm2.key_pair(pair.private) == pair
    assert sm2.base_point_times(1)[1:33] == sm2.GX.to_bytes(32)
    assert sm2.base_point_times(2) != sm2.base_point_times(3)
    assert sm2.base_point_times(sm2.N - 1)[1:33] == sm2.GX.to_bytes(32)  # minus G: the same x


@pytest.mark.parametrize("scalar", [0, sm2.N - 1, sm2.N, (1 << 256) - 1])
def test_numbers_outside_the_order_are_no_private_keys(scalar):
    with pytest.raises(ValueError, match="1 to n-2"):
        sm2.key_pair(scalar.to_bytes(32))


@pytest.mark.parametrize("size", [1, 15, 16, 64, 100, 127, 128, 200, 255])
def test_ciphertext_is_97_bytes_longer_and_opens_again(pair, size):
    plain = bytes(range(size))
    cipher = sm2.encrypt(pair.public, plain)
    assert len(cipher) == 97 + size
    assert cipher[0] == 4
    assert sm2.decrypt(pair.private, cipher) == plain


def test_a_changed_ciphertext_does_not_open(pair):
    cipher = bytearray(sm2.encrypt(pair.public, bytes(16)))
    for place in (5, 40, 70, 100):
        broken = bytearray(cipher)
        broken[place] ^= 1
        with pytest.raises(sm2.Sm2Error):
            sm2.decrypt(pair.private, bytes(broken))
    for form in (b"", bytes(cipher[:97]), bytes(500)):
        with pytest.raises(sm2.Sm2Error):
            sm2.decrypt(pair.private, form)


@pytest.mark.parametrize(
    "public", [b"", bytes(65), b"\x04" + bytes(64), b"\x04" + b"\xff" * 64, b"\x02" + bytes(64)]
)
def test_points_off_the_curve_are_refused(public):
    with pytest.raises(sm2.Sm2Error):
        sm2.encrypt(public, bytes(16))
    with pytest.raises(sm2.Sm2Error):
        sm2.verify(public, MESSAGE, bytes(64))


@pytest.mark.parametrize("size", [0, 256])
def test_only_short_plain_texts_are_encrypted(pair, size):
    with pytest.raises(ValueError, match="1 to 255"):
        sm2.encrypt(pair.public, bytes(size))


def test_a_pair_prints_its_public_half_only(pair):
    assert pair.private.hex().upper() not in repr(pair)
    assert pair.public.hex().upper() in repr(pair)
