"""One business day in order: founding, morning, a power cut, a bank outage, afternoon, the buses' return, evening, close, audit."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from pathlib import Path
from random import Random
from time import perf_counter as now
from typing import Any

from switch.domain.calendar import SHANGHAI
from terminal_sim.broker import EmbeddedBroker
from terminal_sim.city import evening, hospital, papers, shopping, troubles
from terminal_sim.city import second_day as following
from terminal_sim.city.bank_house import BankHouse, link
from terminal_sim.city.books import Books, MerchantDay
from terminal_sim.city.files import DayFiles, compare, read_day
from terminal_sim.city.homecoming import Rush, bring_home, take_stock
from terminal_sim.city.house import MARKER, House
from terminal_sim.city.loading import Hall
from terminal_sim.city.narrative import Narrator
from terminal_sim.city.outage import Outage, bank_outage
from terminal_sim.city.plan import CityPlan, draw_city
from terminal_sim.city.process import HouseError
from terminal_sim.city.reckoning import Reckoning, reckon
from terminal_sim.city.second_day import SecondDay
from terminal_sim.city.street import BAD_LINE_TIMEOUT_S, GOOD_LINE_TIMEOUT_S, Street, everyone
from terminal_sim.city.tally import CountedClient, Tally
from terminal_sim.city.transit import Fleet
from terminal_sim.faults import FaultProxy
from terminal_sim.pos_client import Line

BAD_LINE_EVERY = 5  # one till in five hangs on a bad line
RIDES_PER_PURCHASE = 0.25
COUNTING_TILLS = 16
BROKER_HOST = "127.0.0.1"
_NEAR_CUT_OFF = (time(22, 30), time(23, 0))  # then the day's own end would come in between


@dataclass(slots=True)
class Result:
    """What the day came to. Amounts in fen."""

    plan: CityPlan
    books: Books
    tally: Tally
    street: Street
    day: date = date.min
    elapsed_s: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    requests_per_s: float = 0.0
    files: DayFiles | None = None
    merchants: dict[str, MerchantDay] = field(default_factory=dict)
    close: dict[str, Any] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    balances_compared: int = 0
    lines: dict[str, int] = field(default_factory=dict)  # what the bad lines did
    hall: Hall | None = None
    outage: Outage | None = None
    rush: Rush | None = None
    reckoning: Reckoning | None = None
    following: SecondDay | None = None

    @property
    def close_greys_refused(self) -> int:
        """Grey records that the close decided against the merchant."""
        steps = (step.get("outcome") or {} for step in self.close.get("steps", ()))
        return sum(int(outcome.get("refused", 0)) for outcome in steps)

    @property
    def good(self) -> bool:
        """Whether everything was as the city expected, and the audit is clean."""
        return not self.books.faults and bool(self.audit.get("clean"))


def cut_off_for(moment: datetime) -> time:
    """The usual 23:00, unless the day would end by itself while the city lives."""
    return time(12, 0) if _NEAR_CUT_OFF[0] <= moment.time() < _NEAR_CUT_OFF[1] else _NEAR_CUT_OFF[1]


class Day:
    """The choreography. `house` is left running when it is over; whoever began it stops it.

    A city that goes on has no `second_day`: its business date is the next one, not the one after.
    """

    def __init__(
        self, seed: int, purchases: int, folder: Path, narrator: Narrator, *, second_day: bool
    ) -> None:
        self.moment = datetime.now(SHANGHAI)
        self.plan = draw_city(seed, purchases, self.moment.date())
        self.narrator = narrator
        cut_off = cut_off_for(self.moment)
        self.house = House(
            folder, [("CARDSWITCH_CLEARING__CUT_OFF", f"{cut_off:%H:%M}"), *following.settings()]
        )
        self.bank = BankHouse(self.plan, self.house)
        self.broker = EmbeddedBroker(folder)
        self.folder = folder
        self.has_second_day = second_day
        self.random = Random(f"{seed}/day")
        self.street: Street | None = None
        self._began = now()

    async def end(self) -> None:
        """Hang up everywhere and stop the switch, then its bank and its broker."""
        for client in self.street.clients.values() if self.street is not None else ():
            client.close()
        try:
            await self.house.stop()
        finally:
            try:
                await self.bank.close()
            finally:
                await asyncio.to_thread(self.broker.stop)

    async def live(self) -> Result:
        """Everything. Raises when the city cannot go on; what is merely wrong is in the result's books."""
        plan, narrator = self.plan, self.narrator
        fleet = Fleet(plan, Random(f"{plan.seed}/fleet"), self.moment.replace(tzinfo=None, microsecond=0))
        await self._found_the_city(fleet)
        ready = self.house.ready
        books = Books(plan, today=self.moment.date())
        tally = Tally(plan.seed)
        street = Street(plan, books, tally, Line(ready.host, ready.port))
        self.street = street
        result = Result(plan, books, tally, street, hall=(hall := Hall(street, fleet)))
        result.phases["founding"] = now() - self._began
        async with self._bad_lines(street, result) as bad:
            await self._sign_on(street, fleet)
            began, before = now(), tally.answered
            await self._shopping(street, hall, "morning", plan.purchases // 2, hall.visits // 2)
            selling = now() - began
            narrator.begin("strangers, noise, a power cut")
            good = [street.client(t) for t in plan.tills if t.terminal_id not in bad]
            between = tally.answered
            await troubles.strangers(street, good[0], self.random)
            await troubles.power_cut(street, self.house, good, self.random, narrator.say)
            await self.bank.linked()
            narrator.begin("the bank is away")
            result.outage = await bank_outage(street, self.bank, good, hall, self.random, narrator.say)
            before += tally.answered - between
            began = now()
            await self._shopping(street, hall, "afternoon", plan.purchases - plan.purchases // 2, hall.visits)
            selling += now() - began
            result.requests_per_s = (tally.answered - before) / selling
        narrator.begin("torn cards come again", hall.awaited)
        await hall.come_back(street.kiosk(plan.kiosks[0]), narrator.advance)
        self._mend_lines(street, bad)
        result.phases["shopping"] = selling
        result.day = evening.days_sold(street)[0]
        await self._evening(street, fleet, result)
        if self.has_second_day:
            await self._second_day(street, result)
        await self._counting(street, result)
        result.elapsed_s = now() - self._began
        return result

    async def _found_the_city(self, fleet: Fleet) -> None:
        """Keys, registry and service; meanwhile the buses drive (they need no line)."""
        house, narrator, plan = self.house, self.narrator, self.plan
        rides = round(plan.purchases * RIDES_PER_PURCHASE)
        narrator.begin("founding: database, keys, registry, bank, broker")
        papers.write_private(self.folder / MARKER, papers.describe(plan))
        papers.write_private(self.folder / "keys.json", papers.rehearsal_keys(plan))
        papers.write_private(self.folder / "registry.json", papers.registry(plan))
        driving = asyncio.ensure_future(asyncio.to_thread(fleet.ride_all_day, rides, lambda: None))
        try:
            await house.run("init")
            await house.run("keys", "ceremony", "--rehearsal", "keys.json")
            house.set(*link(await self.bank.open()))
            house.set("CARDSWITCH_MQTT__HOST", BROKER_HOST)
            house.set("CARDSWITCH_MQTT__PORT", str(await asyncio.to_thread(self.broker.start)))
            house.set("CARDSWITCH_MQTT__CLIENT_ID", "city-switch")
            ready = await house.serve()
            await house.run("registry", "import", "registry.json")
            await self.bank.linked()
        finally:
            await driving
        papers.write_private(
            self.folder / MARKER,
            papers.describe(
                plan, host=ready.host, port=ready.port, http=ready.http, mqtt_port=self.broker.port
            ),
        )
        narrator.say(
            f"{len(plan.cards):,} cards, {len(plan.tills)} tills, {len(plan.kiosks)} kiosks, "
            f"{len(plan.vehicles)} buses and gates, a bank; "
            f"the switch is at {ready.host}:{ready.port}"
        )

    @contextlib.asynccontextmanager
    async def _bad_lines(self, street: Street, result: Result) -> AsyncIterator[set[str]]:
        """Tills behind a proxy that drops, delays, repeats and cuts; their ids."""
        host, port = street.line.host, street.line.port
        chosen = self.plan.tills[BAD_LINE_EVERY - 1 :: BAD_LINE_EVERY]
        async with FaultProxy(
            host, port, up=troubles.BAD_UP, down=troubles.BAD_DOWN, seed=self.plan.seed
        ) as proxy:
            line = Line("127.0.0.1", proxy.port)
            for terminal in chosen:
                client = street.client(terminal)
                street.clients[terminal.terminal_id] = troubles.through(
                    client, line, bad=True, timeout_s=BAD_LINE_TIMEOUT_S
                )
            yield {terminal.terminal_id for terminal in chosen}
            result.lines = dict(proxy.counts)

    def _mend_lines(self, street: Street, bad: set[str]) -> None:
        for terminal_id in bad:
            street.clients[terminal_id] = troubles.through(
                street.clients[terminal_id], street.line, bad=False, timeout_s=GOOD_LINE_TIMEOUT_S
            )

    async def _sign_on(self, street: Street, fleet: Fleet) -> None:
        terminals = [*self.plan.tills, self.plan.depot, *(bus.vehicle.terminal for bus in fleet.buses)]
        kiosks = [street.kiosk(place) for place in self.plan.kiosks]
        self.narrator.begin("sign-on of all terminals", len(terminals) + len(kiosks))

        async def one(client: CountedClient) -> None:
            for _ in range(shopping.PATIENCE):
                with contextlib.suppress(*shopping.LINE_TROUBLE):
                    await client.ready()
                    break
            if client.pos.must_sign_on:
                raise HouseError(f"{client.pos.terminal.terminal_id} could not sign on")
            if not client.bad_line and not (await client.echo()).approved:
                street.books.fault("an echo was not answered 00")
            self.narrator.advance()

        everybody = [*kiosks, *(street.client(terminal) for terminal in terminals)]
        await everyone([asyncio.ensure_future(one(client)) for client in everybody])

    async def _shopping(self, street: Street, hall: Hall, when: str, purchases: int, visits: int) -> None:
        """Purchases at all tills, and beside them the kiosks' visitors up to this number."""
        narrator, left = self.narrator, [purchases]
        narrator.begin(f"{when}: shopping, loading cards", purchases)

        def take() -> bool:
            left[0] -= 1
            return left[0] >= 0

        trades = {merchant.merchant_id: merchant.trade for merchant in self.plan.merchants}
        works = []
        for terminal in self.plan.tills:
            random = Random(f"{self.plan.seed}/{when}/{terminal.terminal_id}")
            till = shopping.Till(street, street.client(terminal), trades[terminal.merchant_id], random)
            works.append(asyncio.ensure_future(till.work(take, narrator.advance)))
        kiosks = [street.kiosk(place) for place in self.plan.kiosks]
        works += [asyncio.ensure_future(hall.work(kiosk, visits)) for kiosk in kiosks]
        await everyone(works)

    async def _evening(self, street: Street, fleet: Fleet, result: Result) -> None:
        narrator, plan, began = self.narrator, self.plan, now()
        days = evening.days_sold(street)
        street.books.expect("business days before the close", expected=1, found=len(days))
        records = sum(len(bus.records) for bus in fleet.buses if bus is not fleet.away)
        for what, times in fleet.told.items():
            street.happened(what, times)
        narrator.begin("depot rush: records over MQTT and TCP", records)
        broker = (BROKER_HOST, self.broker.port)
        result.rush = await bring_home(street, fleet, result.day, broker, narrator.advance)
        result.phases["offline records"] = now() - began
        began = now()
        absent = fleet.away.vehicle.terminal.terminal_id
        clients = [client for name, client in street.clients.items() if name != absent]
        narrator.begin("settlement of all batches", len(clients))
        wrong = next(client for client in clients if client.pos.batch.receipts)
        await evening.settle_all(street, clients, wrong, narrator.advance)
        result.phases["settlement"] = now() - began
        began = now()
        await hospital.set_policy(self.house, result.day)
        narrator.begin("close, while late shops sell on")
        ran = await evening.close_while_selling(
            street, self.house, [street.client(terminal) for terminal in plan.tills]
        )
        result.close = ran.document
        result.phases["close"] = now() - began
        street.books.expect("the day that was closed", expected=str(result.day), found=result.close["day"])
        after = evening.days_sold(street)[1:]
        street.books.expect("business days after the close", expected=1, found=len(after))
        narrator.begin("what is missing, who is not home")
        await self._take_stock(street, fleet, result)
        await self._next_morning(street)
        street.happened(
            "late purchases before the cut-over, in the closed day", self._late(street, result.day)
        )
        street.happened(
            "late purchases after it, in the next day", sum(len(street.books.bookings[day]) for day in after)
        )

    async def _second_day(self, street: Street, result: Result) -> None:
        began = now()
        self.narrator.begin("the day after: a dispute, a second close, money and files go out")
        result.following = await following.live(
            street, self.house, result.day, Path(result.close["folder"]), self.narrator.say
        )
        result.phases["second day"] = now() - began

    async def _take_stock(self, street: Street, fleet: Fleet, result: Result) -> None:
        """The operator asks. The close has folded all that came, so the lists are whole."""
        run, since = self.house.run, f"{self.moment:%H:%M}"  # this evening begins with the city's day
        missing, away, trips = await asyncio.gather(
            run("purse", "missing", "--json"),
            run("fleet", "--only", "away", "--evening", since, "--json"),
            run("trips", "day", "--date", str(result.day), "--json"),
        )
        assert result.rush is not None
        take_stock(
            street,
            fleet,
            result.rush,
            missing=missing.document,
            members=away.document["shown"],
            lines=trips.document["lines"],
        )

    async def _next_morning(self, street: Street) -> None:
        """The day after has begun: the medical policy is in force."""
        shop = next(m for m in self.plan.merchants if m.trade.category == hospital.HOSPITAL)
        till = next(t for t in self.plan.tills if t.merchant_id == shop.merchant_id)
        patients = await hospital.first_patients(street, street.client(till), self.random)
        street.happened(
            "next morning, at the hospital: paid by medical and online account together", patients
        )

    def _late(self, street: Street, day: date) -> int:
        """Purchases of the late tills' new batches that still count for the closed day."""
        known = street.books.bookings[day]
        late = [street.client(terminal) for terminal in self.plan.tills[: evening.LATE_TILLS]]
        return sum(receipt.rrn in known for client in late for receipt in client.pos.batch.receipts)

    async def _counting(self, street: Street, result: Result) -> None:
        narrator, began = self.narrator, now()
        tills = [street.client(terminal) for terminal in self.plan.tills[:COUNTING_TILLS]]
        narrator.begin("every balance asked", evening.accounts_to_ask(street))
        result.balances_compared = await evening.count_up(street, tills, narrator.advance)
        narrator.begin("files read, audit")
        result.files = await asyncio.to_thread(read_day, Path(result.close["folder"]))
        result.merchants = compare(street.books, result.day, result.files)
        listed = (await self.house.run("files", "--json", may_fail=True)).document
        street.books.expect("cardswitch files", expected=True, found=listed["ok"])
        ran = await self.house.run("audit", "--json", may_fail=True)
        if ran.status not in (0, 1) or not ran.out:
            raise HouseError(f"cardswitch audit ended with {ran.status}: {ran.err.strip()[-500:]}")
        result.audit = ran.document
        assert result.hall is not None
        result.reckoning = await reckon(
            street, self.house, self.bank, result.hall, result.audit["totals"]["balances_fen"]
        )
        result.phases["counting and audit"] = now() - began
        narrator.end()
