"""The city's bank: whose cards are bound to which citizens' cards, the keys that it shares with the switch, and its accounts.

Drawn apart from the rest of the city, so that nothing else changes with it. Its host is a process of its own (`bank_house`), with these
accounts and keys (docs/host-link.md, section 13).
"""

from random import Random
from typing import Any, Final, NamedTuple

from switch.domain.identifiers import luhn_digit
from terminal_sim.city.plan import CardState, CityCard, CityPlan
from terminal_sim.host.book import Account
from terminal_sim.host.keys import ZoneSecrets

BANK: Final = "01020000"
HOST: Final = "bank"  # as routes and settings call it
BOUND_EVERY: Final = 4  # of the cards that are good
MAC_ID: Final = 5
LIMIT_FEN: Final = 500_000
STAND_IN_FEN: Final = 3_000  # a purchase that the switch approves while the bank is away
STAND_IN_SUM_FEN: Final = 80_000
STAND_IN_COUNT: Final = 60
RECONNECT_MAX_S: Final = 0.5
ANSWER_S: Final = 25.0  # a laptop that does much else meanwhile is slow, and not away; tills give up at 30


class BoundCard(NamedTuple):
    """A bank card and the citizen card that it is bound to."""

    card: CityCard
    number: str
    balance_fen: int

    def __repr__(self) -> str:
        return f"BoundCard({self.number[:6]}…{self.number[-4:]})"


def bound_cards(plan: CityPlan) -> list[BoundCard]:
    """Every fourth good card has one."""
    random = Random(f"accounts {plan.seed}")
    good = [card for card in plan.cards if card.state is CardState.GOOD]
    found = []
    for serial, card in enumerate(good[::BOUND_EVERY], start=1):
        payload = f"622848{serial:012d}"
        found.append(BoundCard(card, payload + luhn_digit(payload), random.randrange(50_000, 2_000_000)))
    return found


def bindings(plan: CityPlan) -> list[dict[str, Any]]:
    """As the bank sends them (docs/registry.md)."""
    return [
        {
            "institution_id": BANK,
            "agreement_id": f"CITY-{serial:06d}",
            "pan": bound.card.pan,
            "bank_card": bound.number,
            "holder_confirmed": True,
            "confirmed_at": f"{bound.card.valid_from}T00:00:00+08:00",
            "transaction_limit_fen": LIMIT_FEN,
        }
        for serial, bound in enumerate(bound_cards(plan), start=1)
    ]


def accounts(plan: CityPlan) -> list[Account]:
    """The bank's side of them. They ask for no PIN."""
    return [Account(bound.number, bound.balance_fen) for bound in bound_cards(plan)]


def secrets(plan: CityPlan) -> ZoneSecrets:
    """The keys on which bank and switch agreed."""
    random = Random(f"zone {plan.seed}")
    return ZoneSecrets(random.randbytes(16), random.randbytes(16), random.randbytes(16), MAC_ID)


def zone_keys(plan: CityPlan) -> list[dict[str, Any]]:
    """The same keys as entries of a rehearsal file (docs/keys.md, section 8)."""
    zone = secrets(plan)
    return [
        {"type": kind, "algorithm": "SM4", "owner": BANK, "level": "zone", "components": [key.hex().upper()]}
        for kind, key in (("ZMK", zone.zmk), ("ZAK", zone.zak), ("ZPK", zone.zpk))
    ]


def host_settings(port: int) -> dict[str, Any]:
    """The bank as one of the switch's `hosts.links`."""
    return {
        "name": HOST,
        "institution": BANK,
        "host": "127.0.0.1",
        "port": port,
        "mac_id": MAC_ID,
        "answer_s": ANSWER_S,
        "reconnect_max_s": RECONNECT_MAX_S,
        "stand_in_amount_fen": STAND_IN_FEN,
        "stand_in_outstanding_fen": STAND_IN_SUM_FEN,
        "stand_in_outstanding_count": STAND_IN_COUNT,
    }
