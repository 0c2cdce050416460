"""Cards, PSAMs and readers for these tests, built with fixed keys."""

from collections.abc import Callable

from terminal_sim import crypto
from terminal_sim.apdu import ApduDevice
from terminal_sim.card import PURCHASE, PurseCard
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


MOMENT = "20240315081530"
BALANCE = "805C000204"
SM4, DES = "41", "01"


def initialize_purchase(amount_fen: int, index: str = SM4, mode: str = "01") -> str:
    return f"8050{mode}020B{index}{amount_fen:08X}{PSAM_NO}0F"


def initialize_load(amount_fen: int, index: str = SM4) -> str:
    return f"805000020B{index}{amount_fen:08X}{PSAM_NO}10"


def debit(card: PurseCard, amount_fen: int, answer: str, tti: int = PURCHASE) -> str:
    """INIT SAM and the DEBIT command it leads to, for an INITIALIZE answer."""
    psam = make_psam()
    random, atc, version_algorithm = answer[22:30], answer[8:12], answer[18:22]
    data = f"{random}{atc}{amount_fen:08X}{tti:02X}{MOMENT}{version_algorithm}{ASN[-16:]}{ISSUER_ID.hex()}"
    made = send(psam, "8070000024" + data + "08")
    assert made.endswith("9000")
    return f"805401000F{made[:8]}{MOMENT}{made[8:16]}08"


def buy(card: PurseCard, amount_fen: int, index: str = SM4) -> str:
    return send(card, debit(card, amount_fen, send(card, initialize_purchase(amount_fen, index))))


def credit(card: PurseCard, amount_fen: int, answer: str, index: str = SM4) -> str:
    """The CREDIT command that the switch would allow."""
    own = next(s for s in ISSUER.card_keys(ASN) if s.key_index == int(index, 16))
    seed = crypto.load_seed(bytes.fromhex(answer[16:24]), int(answer[8:12], 16))
    key = crypto.session_key(own.algorithm, own.keys[KeyKind.LOAD], seed)
    data = bytes.fromhex(f"{amount_fen:08X}02{PSAM_NO}{MOMENT}")
    return f"805200000B{MOMENT}{crypto.purse_mac(own.algorithm, key, data).hex()}04"


def maintain(card: PurseCard, header: str, data: str = "", *, spoil: bool = False) -> str:
    """GET CHALLENGE and a command under secure messaging with the card's own DAMK."""
    challenge = bytes.fromhex(send(card, "0084000004")[:8])
    own = ISSUER.card_keys(ASN)[0]
    full = bytes.fromhex(header) + bytes((len(data) // 2 + 4,))
    mac = crypto.secure_messaging_mac(
        own.algorithm, own.keys[KeyKind.MAINTENANCE], challenge, full, bytes.fromhex(data)
    )
    if spoil:
        mac = crypto.inverted(mac)
    return send(card, full + bytes.fromhex(data) + mac)
