"""What a city consists of, drawn from a seed: its keys, merchants, tills, buses and cards. Amounts in fen.

The same seed and size give the same city, whatever the day; only dates of validity follow the calendar.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import Enum
from random import Random
from typing import NamedTuple

from switch.domain.identifiers import luhn_digit
from terminal_sim.crypto import MAC_ALGORITHM, Algorithm, KeyKind, diversify
from terminal_sim.frames import CardData, Terminal
from terminal_sim.personalisation import CardProfile, Issuer, RootSet

OWN, TRANSIT, CENTRE, NEIGHBOUR = "99993350", "99993351", "99990000", "99993310"
OWN_ISSUER, FOREIGN_ISSUER = (bytes.fromhex(code + "FFFFFFFF") for code in (OWN, NEIGHBOUR))
RULES_FROM = date(2024, 1, 1)
ROOT_KINDS = (KeyKind.PURCHASE, KeyKind.LOAD, KeyKind.TAC, KeyKind.MAINTENANCE)
PURCHASES_DEFAULT = 6_000
PURCHASES_MAX = 60_000
GUEST_TERMINALS = 5  # one for each MAC algorithm; nobody in the city uses them
GUEST_CARDS = 10


class CardState(Enum):
    """What a card is, and what an online purchase with it is answered."""

    GOOD = "00"
    LOST = "41"
    EXPIRED = "54"
    NOT_HANDED_OVER = "21"
    REPLACED = "62"


class Trade(NamedTuple):
    """A merchant of the story."""

    name: str
    category: str  # ISO 18245
    usual_fen: tuple[int, int]  # a purchase, from and to
    tills: int  # share of the city's POS
    medical: bool = False


TRADES = (
    Trade("嘉禾超市 Jiahe Supermarket", "5411", (800, 19_900), 9),
    Trade("南湖醫院藥房 Nanhu Hospital Pharmacy", "5912", (1_500, 24_000), 5, medical=True),
    Trade("市立第一醫院 First City Hospital", "8062", (1_000, 30_000), 4, medical=True),
    Trade("月河粽子店 Yuehe Dumpling House", "5812", (600, 5_800), 5),
    Trade("梅灣菜市場 Meiwan Wet Market", "5499", (300, 6_500), 5),
    Trade("新華書店 Xinhua Bookshop", "5942", (1_200, 12_800), 3),
    Trade("煙雨樓影院 Yanyu Cinema", "7832", (2_500, 9_900), 3),
    Trade("自來水公司 City Waterworks", "4900", (3_000, 15_000), 2),
    Trade("中心停車場 Central Car Park", "7523", (200, 4_000), 2),
    Trade("市圖書館 City Library", "8299", (100, 2_000), 2),
)
BUS, METRO = "嘉禾公交 City Buses", "南湖軌道 Nanhu Metro"


HALL = "市民卡服務廳 Card Service Hall"


class FeeRule(NamedTuple):
    """One rule. Scope: a merchant, else a category, else everybody."""

    account_kind: str  # ONLINE, MEDICAL, PURSE
    rate_ppm: int
    cap_fen: int | None = None
    minimum_fen: int = 0
    category: str = ""
    merchant_id: str = ""

    def fee_fen(self, amount_fen: int) -> int:
        """Half up, not below the minimum, not above the cap or the amount; a negative amount gives its fee back."""
        if amount_fen < 0:
            return -self.fee_fen(-amount_fen)
        fee = (amount_fen * self.rate_ppm + 500_000) // 1_000_000
        fee = max(fee, self.minimum_fen) if amount_fen else fee
        if self.cap_fen is not None:
            fee = min(fee, self.cap_fen)
        return min(fee, amount_fen)


@dataclass(frozen=True, slots=True)
class Merchant:
    """Somebody who sells."""

    merchant_id: str
    trade: Trade
    acquirer_id: str = OWN


@dataclass(slots=True)
class Holder:
    """A person with accounts. None: there is no such account."""

    number: int
    pin: str | None = field(repr=False)
    online_fen: int | None
    medical_fen: int | None


@dataclass(slots=True, eq=False)
class CityCard:
    """One card in somebody's pocket."""

    pan: str
    holder: Holder
    state: CardState
    valid_from: date
    valid_through: date
    purse_fen: int | None
    offline_atc: int = 0
    foreign: bool = False

    def __repr__(self) -> str:
        return f"CityCard({self.pan[:6]}…{self.pan[-4:]}, {self.state.name})"

    @property
    def asn(self) -> str:
        """Application serial number."""
        return "0" + self.pan

    @property
    def data(self) -> CardData:
        """What a reader gives of it."""
        return CardData(self.pan, expiry=f"{self.valid_through:%y%m}")

    @property
    def profile(self) -> CardProfile:
        """The open data of its purse application."""
        return CardProfile(
            self.asn,
            FOREIGN_ISSUER if self.foreign else OWN_ISSUER,
            city_code="3310" if self.foreign else "3350",
            valid_from=self.valid_from,
            valid_to=self.valid_through,
        )


@dataclass(frozen=True, slots=True)
class Vehicle:
    """A bus or a metro gate: its terminal and its PSAM."""

    terminal: Terminal
    psam_no: str
    line: str
    number: str
    gate: bool = False
    over_mqtt: bool = False  # hands its records in through the broker


class KioskPlace(NamedTuple):
    """A load kiosk: its terminal, and the number under which cards know it."""

    terminal: Terminal
    psam_no: str


@dataclass(slots=True)
class Keys:
    """Roots of the rehearsal. Shows none of them."""

    tmmk: dict[Algorithm, bytes]
    root_sets: tuple[RootSet, ...]

    def __repr__(self) -> str:
        return "Keys(<hidden>)"


@dataclass(slots=True)
class CityPlan:
    """The whole city before the day begins."""

    seed: int
    purchases: int
    keys: Keys
    merchants: list[Merchant] = field(default_factory=list)
    bus_company: Merchant = field(init=False)
    metro: Merchant = field(init=False)
    hall: Merchant = field(init=False)  # where cards are loaded
    tills: list[Terminal] = field(default_factory=list)
    guests: list[Terminal] = field(default_factory=list)
    vehicles: list[Vehicle] = field(default_factory=list)
    depot: Terminal = field(init=False)  # collects what buses bring home
    kiosks: list[KioskPlace] = field(default_factory=list)
    cards: list[CityCard] = field(default_factory=list)
    guest_cards: list[CityCard] = field(default_factory=list)
    foreign_cards: list[CityCard] = field(default_factory=list)
    fee_rules: list[FeeRule] = field(default_factory=list)

    @property
    def terminals(self) -> list[Terminal]:
        """Everything that signs on."""
        vehicles = (vehicle.terminal for vehicle in self.vehicles)
        return [*self.tills, *self.guests, self.depot, *vehicles, *(kiosk.terminal for kiosk in self.kiosks)]

    @property
    def everybody(self) -> list[Merchant]:
        """Shops, transport, and the hall, which sells nothing."""
        return [*self.merchants, self.bus_company, self.metro, self.hall]

    def fee_rule(self, merchant_id: str, account_kind: str) -> FeeRule | None:
        """The most specific rule: the merchant's, its category's, the general one."""
        category = next(m.trade.category for m in self.everybody if m.merchant_id == merchant_id)
        found = [
            rule
            for rule in self.fee_rules
            if rule.account_kind == account_kind
            and rule.merchant_id in ("", merchant_id)
            and rule.category in ("", category)
        ]
        return max(found, key=lambda rule: (bool(rule.merchant_id), bool(rule.category)), default=None)

    def issuer(self, *, foreign: bool) -> Issuer:
        """The personalisation centre that made the cards."""
        return Issuer(FOREIGN_ISSUER if foreign else OWN_ISSUER, self.keys.root_sets)


def _key(random: Random) -> bytes:
    """Sixteen bytes with odd parity, as 3DES keys are written; SM4 does not mind."""
    return bytes(byte ^ (byte.bit_count() & 1 ^ 1) for byte in random.randbytes(16))


def _keys(random: Random) -> Keys:
    tmmk = {algorithm: _key(random) for algorithm in (Algorithm.TRIPLE_DES, Algorithm.SM4)}
    sets = tuple(
        RootSet(index, 1, algorithm, {kind: _key(random) for kind in ROOT_KINDS})
        for index, algorithm in ((0x41, Algorithm.SM4), (0x01, Algorithm.TRIPLE_DES))
    )
    return Keys(tmmk, sets)


def _merchant_id(category: str, number: int) -> str:
    return f"993350{category}{number:05d}"


def _fee_rules(merchants: list[Merchant]) -> list[FeeRule]:
    bookshop = next(merchant for merchant in merchants if merchant.trade.category == "5942")
    return [
        FeeRule("ONLINE", 6_000, cap_fen=2_000),
        FeeRule("ONLINE", 3_800, cap_fen=1_300, category="5411"),
        FeeRule("ONLINE", 2_500, minimum_fen=1, merchant_id=bookshop.merchant_id),
        FeeRule("BANK", 4_500, cap_fen=1_500),
        FeeRule("MEDICAL", 0),
        FeeRule("PURSE", 3_000),
        FeeRule("PURSE", 5_000, category="4111"),
    ]


class _Numbers:
    """Card numbers and terminal ids, each once."""

    def __init__(self) -> None:
        self._serial = 0
        self._terminal = 0

    def pan(self, city: str = "3350") -> str:
        self._serial += 1
        digits = f"31{city}01{self._serial:010d}"
        return digits + luhn_digit(digits)

    def terminal_id(self) -> str:
        self._terminal += 1
        return f"3350{self._terminal:04d}"


def _terminal(keys: Keys, terminal_id: str, merchant_id: str, mac_id: int) -> Terminal:
    algorithm = MAC_ALGORITHM[mac_id]
    tmk = diversify(algorithm, keys.tmmk[algorithm], terminal_id.encode("ascii"))
    return Terminal(terminal_id, merchant_id, tmk, mac_id, serial_number=f"CITY{terminal_id}")


def _cards(random: Random, numbers: _Numbers, count: int, today: date) -> Iterator[CityCard]:
    """Cards and their holders: one in 60 lost, expired, waiting or replaced; the new card shares the old one's account."""
    special = {0: CardState.LOST, 1: CardState.EXPIRED, 2: CardState.NOT_HANDED_OVER, 3: CardState.REPLACED}
    for number in range(1, count + 1):
        online: int | None = random.randrange(5_000, 120_000)
        if random.random() < 0.08:
            online = random.randrange(0, 2_000)  # broke before pay-day
        if random.random() < 0.02:
            online = None  # purse only
        medical = random.randrange(20_000, 200_000) if random.random() < 0.35 else None
        pin = f"{random.randrange(10**6):06d}" if random.random() < 0.4 else None
        if online is None and medical is None:
            pin = None
        holder = Holder(number, pin, online, medical)
        state = special.get(number % 60, CardState.GOOD)
        purse = random.randrange(300, 20_000) if random.random() < 0.7 else None
        begin = today - timedelta(days=random.randrange(30, 3_000))
        end = today + timedelta(days=random.randrange(40, 600))
        if state is CardState.EXPIRED:
            end = today - timedelta(days=random.randrange(2, 20))
        atc = random.randrange(0, 4_000)
        yield CityCard(numbers.pan(), holder, state, begin, end, purse, atc)
        if state is CardState.REPLACED:
            yield CityCard(numbers.pan(), holder, CardState.GOOD, today, today + timedelta(days=3_650), 0, 0)


def _guest_cards(numbers: _Numbers, first_holder: int, today: date) -> Iterator[CityCard]:
    for number in range(GUEST_CARDS):
        holder = Holder(first_holder + number, "123456" if number % 2 else None, 100_000, 50_000)
        yield CityCard(
            numbers.pan(), holder, CardState.GOOD, RULES_FROM, today + timedelta(days=3_650), 10_000, 0
        )


def _foreign_cards(random: Random, numbers: _Numbers, count: int, today: date) -> Iterator[CityCard]:
    nobody = Holder(0, None, None, None)
    for _ in range(count):
        yield CityCard(
            numbers.pan("3310"),
            nobody,
            CardState.GOOD,
            RULES_FROM,
            today + timedelta(days=1_000),
            random.randrange(2_000, 9_000),
            random.randrange(0, 900),
            foreign=True,
        )


def draw_city(seed: int, purchases: int, today: date) -> CityPlan:
    """Draw everything. purchases: how busy the day will be; the city grows with it up to its full size."""
    random = Random(f"city/{seed}")  # a story, not a secret: keys of a rehearsal are to come again
    numbers = _Numbers()
    plan = CityPlan(seed, purchases, _keys(random))
    plan.merchants = [
        Merchant(_merchant_id(trade.category, number), trade) for number, trade in enumerate(TRADES, start=1)
    ]
    plan.bus_company = Merchant(_merchant_id("4111", 91), Trade(BUS, "4111", (100, 300), 0), TRANSIT)
    plan.metro = Merchant(_merchant_id("4112", 92), Trade(METRO, "4112", (200, 800), 0), TRANSIT)
    plan.hall = Merchant(_merchant_id("9399", 93), Trade(HALL, "9399", (0, 0), 0))
    plan.fee_rules = _fee_rules(plan.merchants)

    size = min(1.0, purchases / PURCHASES_DEFAULT)
    for merchant in plan.merchants:
        for _ in range(max(1, round(merchant.trade.tills * size))):
            mac_id = len(plan.tills) % 5 + 1
            plan.tills.append(_terminal(plan.keys, numbers.terminal_id(), merchant.merchant_id, mac_id))
    for mac_id in range(1, GUEST_TERMINALS + 1):
        shop = plan.merchants[mac_id - 1]
        plan.guests.append(_terminal(plan.keys, numbers.terminal_id(), shop.merchant_id, mac_id))
    plan.depot = _terminal(plan.keys, numbers.terminal_id(), plan.bus_company.merchant_id, 5)
    for number in range(1, max(6, round(20 * size)) + 1):
        gate = number % 4 == 0
        company = plan.metro if gate else plan.bus_company
        mac_id = 5 if number % 2 else number % 5 + 1
        terminal = _terminal(plan.keys, numbers.terminal_id(), company.merchant_id, mac_id)
        plan.vehicles.append(
            Vehicle(
                terminal,
                f"3350{number:08d}",
                f"{number % 7 + 1:04d}",
                f"{number:08d}",
                gate,
                over_mqtt=number % 4 < 2,  # half of them: the gates, and every third bus
            )
        )
    for number in range(1, max(2, round(4 * size)) + 1):
        terminal = _terminal(plan.keys, numbers.terminal_id(), plan.hall.merchant_id, number % 5 + 1)
        plan.kiosks.append(KioskPlace(terminal, f"33509{number:07d}"))

    plan.cards = list(_cards(random, numbers, max(240, round(2_000 * size)), today))
    plan.guest_cards = list(_guest_cards(numbers, 900_001, today))
    plan.foreign_cards = list(_foreign_cards(random, numbers, 12, today))
    return plan
