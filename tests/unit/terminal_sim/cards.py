"""Cards, PSAMs and readers for these tests, built with fixed keys."""

from collections.abc import Callable

from terminal_sim.apdu import ApduDevice
from terminal_sim.card import PurseCard
from terminal_sim.crypto import Algorithm, KeyKind
from terminal_sim.personalisation import CardProfile, Issuer, RootSet
from terminal_sim.psam import Psam

ASN = "03133500100000001239"
ISSUER_ID = bytes.fromhex("99993350FFFFFFFF")
PSAM_NO = "335000000017"
SELECT = "00A4040008A00000063201010500"


def root_set(algorithm: Algorithm) -> RootSet:
    roots = {
        kind: bytes([place + algorithm]) * 8 + bytes(range(8)) for place, kind in enumerate(KeyKind, start=1)
    }
    if algorithm is Algorithm.SM4:
        return RootSet(0x41, 2, algorithm, roots)
    return RootSet(0x01, 1, algorithm, roots)


ROOT_SETS = {algorithm: root_set(algorithm) for algorithm in Algorithm}
ISSUER = Issuer(ISSUER_ID, [ROOT_SETS[Algorithm.SM4], ROOT_SETS[Algorithm.TRIPLE_DES]])


def fixed_random(value: bytes) -> Callable[[int], bytes]:
    return lambda size: (value * 8)[:size]


def make_card(**options: object) -> PurseCard:
    """A card with an SM4 set (41, version 2) that maintains it, and a 3DES set (01, version 1)."""
    options.setdefault("balance_fen", 10_000)
    return PurseCard(CardProfile(ASN, ISSUER_ID), ISSUER.card_keys(ASN), **options)  # type: ignore[arg-type]  # test options


def make_psam(**options: object) -> Psam:
    return Psam(
        PSAM_NO,
        {(own.version, own.algorithm): own.roots[KeyKind.PURCHASE] for own in ROOT_SETS.values()},
        maintenance_roots={
            (own.version, own.algorithm): own.roots[KeyKind.MAINTENANCE] for own in ROOT_SETS.values()
        },
        **options,  # type: ignore[arg-type]  # test options
    )


def send(device: ApduDevice, command: str | bytes) -> str:
    """Upper-case hex of data and status word."""
    raw = bytes.fromhex(command) if isinstance(command, str) else command
    return device.transmit(raw).hex().upper()


def selected(card: PurseCard) -> PurseCard:
    assert send(card, SELECT).endswith("9000")
    return card
