"""What an online account with limits should do, in the simplest words: one thread, one dictionary, no database.

It shares nothing with the ledger. Amounts in fen; answers are field 39.
"""

from dataclasses import dataclass

BUYS, HOLDS, TAKES = "purchase", "pre-authorisation", "completion"
VOIDS = {"void": BUYS, "pre-authorisation void": HOLDS, "completion void": TAKES}
EXPIRED = -1


@dataclass
class PurseDeal:
    """A load that was approved. credited: what only its card knows. over: its money has found its place."""

    fen: int
    own: bool
    credited: bool = False
    on_its_way: bool = True  # in the float; else in suspense or back
    over: bool = False


@dataclass
class Deal:
    """One request that was decided. of: the number of its original."""

    kind: str
    fen: int
    answer: str
    of: int | None = None
    undone_by: int | None = None
    refunded: int = 0
    frozen: int = 0
    ended_by: int | None = None
    over: bool = False
    last_taken: int | None = None


class AccountModel:
    """One account and everything that was ever asked of it."""

    def __init__(self, balance: int, day_limit: int) -> None:
        self.balance = balance
        self.day_limit = day_limit
        self.spent = 0
        self.lost = False
        self.deals: list[Deal] = []
        self.loads: list[PurseDeal] = []
        self.card_counter = 0
        self.card_fen = 0

    @property
    def held(self) -> int:
        return sum(deal.frozen for deal in self.deals)

    @property
    def free(self) -> int:
        return self.balance - self.held

    def ask(self, kind: str, fen: int, of: int | None = None) -> str:
        """Decide a request and keep it; its number is its place."""
        number = len(self.deals)
        self.deals.append(Deal(kind, fen, "", of))
        self.deals[number].answer = self._decide(self.deals[number], number)
        return self.deals[number].answer

    def _decide(self, deal: Deal, number: int) -> str:
        if deal.kind in (BUYS, HOLDS):
            return self._spend(deal)
        assert deal.of is not None
        first = self.deals[deal.of]
        if deal.kind == "refund":
            return self._refund(deal, first)
        if deal.kind == "reversal":
            return self._reverse(first, deal.of, number)
        if deal.kind == TAKES:
            return self._complete(deal, first, number)
        return self._void(deal, first, number)

    def _spend(self, deal: Deal) -> str:
        if deal.fen == 0:
            return "13"
        if self.lost:
            return "41"
        if deal.fen > self.free:
            return "51"
        if self.spent + deal.fen > self.day_limit:
            return "61"
        self.spent += deal.fen
        if deal.kind == BUYS:
            self.balance -= deal.fen
        else:
            deal.frozen = deal.fen
        return "00"

    def _refund(self, deal: Deal, first: Deal) -> str:
        if deal.fen == 0:
            return "13"
        if first.kind not in (BUYS, TAKES) or first.answer != "00" or first.undone_by is not None:
            return "12"
        if first.refunded + deal.fen > first.fen:
            return "64"
        first.refunded += deal.fen
        self.balance += deal.fen
        return "00"

    def _complete(self, deal: Deal, hold: Deal, number: int) -> str:
        if deal.fen == 0:
            return "13"
        refused = self._hold_refused(hold)
        if refused:
            return refused
        if deal.fen * 100 > hold.fen * 115:
            return "61"
        if deal.fen > hold.fen and self.lost:
            return "41"
        if deal.fen - hold.frozen > self.free:
            return "51"
        hold.frozen, hold.ended_by, hold.last_taken = 0, number, number
        self.balance -= deal.fen
        return "00"

    def _hold_refused(self, hold: Deal) -> str:
        if hold.kind != HOLDS or hold.answer != "00":
            return "12"
        if hold.over:
            return "25"
        return "12" if hold.ended_by is not None else ""

    def _void(self, deal: Deal, first: Deal, number: int) -> str:
        if deal.kind == "pre-authorisation void":
            refused = self._hold_refused(first)
            if not refused:
                first.frozen, first.ended_by = 0, number
                self.spent -= first.fen
            return refused or "00"
        if (
            first.kind != VOIDS[deal.kind]
            or first.answer != "00"
            or first.undone_by is not None
            or first.refunded
        ):
            return "12"
        self._give_back(first, number)
        return "00"

    def _give_back(self, first: Deal, number: int) -> None:
        first.undone_by = number
        self.balance += first.fen
        if first.kind == BUYS:
            self.spent -= first.fen
        else:
            self._freeze_again(first)

    def _freeze_again(self, ended: Deal) -> None:
        """What ended a hold counts no more."""
        assert ended.of is not None
        hold = self.deals[ended.of]
        if hold.ended_by is not None and hold.ended_by != EXPIRED and self.deals[hold.ended_by] is ended:
            hold.ended_by = EXPIRED if hold.over else None
            hold.frozen = 0 if hold.over else min(hold.fen, self.free)

    def _reverse(self, first: Deal, place: int, number: int) -> str:
        if first.answer != "00":
            return "00"
        if first.kind == HOLDS:
            if first.ended_by not in (None, EXPIRED):
                return "12"
            first.frozen, first.ended_by = 0, number
            self.spent -= first.fen
        elif first.kind == "pre-authorisation void":
            self._freeze_again(first)
            assert first.of is not None
            self.spent += first.fen
        elif first.undone_by is not None or first.refunded:
            return "12"
        elif first.kind in (BUYS, TAKES):
            self._give_back(first, number)
        else:
            return self._void_undone(first, place, number)
        return "00"

    def _void_undone(self, void: Deal, place: int, number: int) -> str:
        assert void.of is not None
        voided = self.deals[void.of]
        frozen = 0
        if void.kind == "completion void":
            assert voided.of is not None
            hold = self.deals[voided.of]
            if hold.last_taken != void.of or hold.ended_by not in (None, EXPIRED):
                return "12"
            frozen = hold.frozen
        if voided.undone_by != place or void.fen - frozen > self.free:
            return "12"
        if void.kind == "completion void":
            hold.frozen, hold.ended_by = 0, void.of
        else:
            self.spent += void.fen
        voided.undone_by, void.undone_by = None, number
        self.balance -= void.fen
        return "00"

    @property
    def in_float(self) -> int:
        """What the shadow of the purse shows."""
        return sum(load.fen for load in self.loads if load.on_its_way)

    def load(self, fen: int, *, own: bool) -> str:
        """The card comes to be loaded; what it proves settles what was open before anybody pays."""
        answer = self._load(fen, own=own)
        self.deals.append(Deal("load", fen, answer))
        return answer

    def _load(self, fen: int, *, own: bool) -> str:
        if fen == 0:
            return "13"
        if self.lost:
            return "41"
        if self.card_fen + fen > 100_000:
            return "61"
        for load in self.loads:
            if not load.over:
                load.over, load.on_its_way = True, load.credited
                if not load.credited and load.own:
                    self.balance += load.fen
        if own and fen > self.free:
            return "51"
        if own:
            self.balance -= fen
        self.loads.append(PurseDeal(fen, own))
        return "00"

    def credit(self) -> None:
        """The card takes what was approved last."""
        load = self.loads[-1]
        load.credited = True
        self.card_counter += 1
        self.card_fen += load.fen

    def end_load(self, how: str) -> str:
        """What the terminal says about the load approved last: confirm, wrong (its TAC), gone, or reversal."""
        load = self.loads[-1]
        self.deals.append(Deal(f"load {how}", load.fen, "00"))
        if how == "confirm":
            load.over = True
        else:
            load.on_its_way = False
        if how == "reversal":
            load.over = not load.credited
            self.balance += load.fen if load.own else 0
        return "00"

    def expire(self, number: int) -> None:
        """A hold's last day is over, whatever has become of it."""
        hold = self.deals[number]
        if hold.kind == HOLDS and hold.answer == "00":
            hold.over = True
            if hold.ended_by is None:
                hold.frozen, hold.ended_by = 0, EXPIRED
