"""A PBOC electronic purse card 電子錢包卡 as an APDU machine (JR/T 0025.2 style, with the CAPP extension of JT/T 978).

A command that is not the one a pending transaction waits for drops it. Balance, counter, log, proof and cached ride records
change together or not at all. The card knows no clock, no terminal and no switch; its random numbers come from outside, so
that known answers can be replayed. Amounts are fen.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hmac import compare_digest
from os import urandom
from types import MappingProxyType
from typing import ClassVar

from terminal_sim import crypto
from terminal_sim.apdu import Command, StatusError, Sw
from terminal_sim.card_os import CAPP_FILE, PURSE_LOG, RIDE_LOG, CardOs, Handlers, Lock, exactly, parameters
from terminal_sim.crypto import KeyKind
from terminal_sim.personalisation import CardKeySet, CardProfile

LOAD, PURCHASE, CAPP = 0x02, 0x06, 0x09  # 交易類型標識 TTI
TTI_UNSUPPORTED = (0x01, 0x03, 0x05, 0x07)  # deposit book 電子存摺, unload, overdraft
COUNTER_MAX = 0xFFFF
BALANCE_MAX_FEN = 100_000
LOG_RECORDS_MAX, RIDE_RECORDS_MAX = 10, 30  # cyclic files
LOG_BYTES, RIDE_BYTES, CAPP_BYTES_MAX = 23, 48, 128
CAPP_UPDATES_MAX = 8  # records that one CAPP transaction may cache
MAC1_FAILURES_MAX = 15

GET_BALANCE, INITIALIZE, CREDIT, DEBIT, UPDATE_CAPP, PROVE = 0x5C, 0x50, 0x52, 0x54, 0xDC, 0x5A
_TTI_OF_P1: Mapping[int, int] = MappingProxyType({0x00: LOAD, 0x01: PURCHASE, 0x03: CAPP})
_P1_UNSUPPORTED = (0x02, 0x04, 0x05)  # cash withdrawal, overdraft change, unload
_PURSE = 0x02  # P2; 01 would be the deposit book


@dataclass(slots=True)
class _Pending:
    """A transaction between INITIALIZE and its last step."""

    tti: int
    keys: CardKeySet
    amount_fen: int
    terminal_no: bytes
    random: bytes
    updates: list[tuple[int, int, bytes]] = field(default_factory=list)  # SFI, record id, content

    @property
    def next_steps(self) -> tuple[int, ...]:
        if self.tti == LOAD:
            return (CREDIT,)
        if self.tti == PURCHASE:
            return (DEBIT,)
        return (UPDATE_CAPP, DEBIT) if self.updates else (UPDATE_CAPP,)


class PurseCard(CardOs):
    """One card. `transmit` takes APDUs; `reset` is the card leaving the field."""

    __slots__ = ("_pending", "_taken", "balance_max_fen", "capp_locked", "grey_locked")

    handlers: ClassVar[Handlers] = MappingProxyType(
        {
            **CardOs.handlers,
            GET_BALANCE: (0x80, "_get_balance"),
            INITIALIZE: (0x80, "_initialize"),
            CREDIT: (0x80, "_credit"),
            DEBIT: (0x80, "_debit"),
            UPDATE_CAPP: (0x80, "_update_capp"),
            PROVE: (0x80, "_prove"),
        }
    )
    while_blocked: ClassVar[frozenset[int]] = CardOs.while_blocked | {GET_BALANCE, PROVE}

    def __init__(
        self,
        profile: CardProfile,
        key_sets: Iterable[CardKeySet],
        *,
        balance_fen: int = 0,
        online_atc: int = 0,
        offline_atc: int = 0,
        balance_max_fen: int = BALANCE_MAX_FEN,
        pin: str | None = "123456",
        capp_ids: Iterable[int] = (),
        random: Callable[[int], bytes] = urandom,
    ) -> None:
        """Make a card with a history. capp_ids: the records that exist in file 1A."""
        super().__init__(profile, key_sets, pin=pin, random=random)
        self.memory.balance_fen = balance_fen
        self.memory.online_atc = online_atc
        self.memory.offline_atc = offline_atc
        self.memory.capp_records = dict.fromkeys(capp_ids, b"")
        self.balance_max_fen = balance_max_fen
        self.grey_locked = False  # 灰鎖: purchases answer 9408
        self.capp_locked: frozenset[int] = frozenset()  # record ids of file 1A that answer 9407

    def __repr__(self) -> str:
        return f"PurseCard({self.profile!r}, balance_fen={self.memory.balance_fen})"

    @property
    def balance_fen(self) -> int:
        """For the simulation's own books; terminals ask with GET BALANCE."""
        return self.memory.balance_fen

    @property
    def online_atc(self) -> int:
        """Loads so far."""
        return self.memory.online_atc

    @property
    def offline_atc(self) -> int:
        """Purchases so far."""
        return self.memory.offline_atc

    @property
    def lock(self) -> Lock:
        """What is blocked."""
        return self.memory.lock

    def _forget(self) -> None:
        super()._forget()
        self._pending: _Pending | None = None
        self._taken: _Pending | None = None

    def answer(self, command: Command) -> bytes:
        """Whatever comes, the pending transaction is taken; only its own next step finds it."""
        self._taken, self._pending = self._pending, None
        return super().answer(command)

    def _expected(self, ins: int) -> _Pending:
        pending = self._taken
        if pending is None:
            raise StatusError(Sw.CONDITIONS)
        if ins not in pending.next_steps:
            raise StatusError(Sw.STATE)
        return pending

    # --- balance and INITIALIZE ---------------------------------------------------------------------------------

    def _get_balance(self, command: Command, _challenge: bytes) -> bytes:
        if command.p2 != _PURSE:
            raise StatusError(Sw.NOT_SUPPORTED)
        parameters(command, 0x00, _PURSE)
        return self.memory.balance_fen.to_bytes(4)

    def _initialize(self, command: Command, _challenge: bytes) -> bytes:
        if command.p2 != _PURSE or command.p1 in _P1_UNSUPPORTED:
            raise StatusError(Sw.NOT_SUPPORTED)
        if command.p1 not in _TTI_OF_P1:
            raise StatusError(Sw.P1_P2)
        tti = _TTI_OF_P1[command.p1]
        data = exactly(command, 11)
        own = self._key_set(data[0])
        amount_fen, terminal_no = int.from_bytes(data[1:5]), data[5:11]
        memory = self.memory
        if (memory.online_atc if tti == LOAD else memory.offline_atc) >= COUNTER_MAX:
            raise StatusError(Sw.COUNTER)
        if tti == LOAD:
            if memory.balance_fen + amount_fen > self.balance_max_fen:
                raise StatusError(Sw.CONDITIONS)
        elif self.grey_locked:
            raise StatusError(Sw.GREY_LOCKED)
        elif amount_fen > memory.balance_fen:
            raise StatusError(Sw.BALANCE)
        pending = _Pending(tti, own, amount_fen, terminal_no, self._random(4))
        answer = self._load_answer(pending) if tti == LOAD else self._purchase_answer(pending)
        self._pending = pending
        return answer

    def _load_answer(self, pending: _Pending) -> bytes:
        own, balance = pending.keys, self.memory.balance_fen.to_bytes(4)
        mac1 = crypto.purse_mac(
            own.algorithm,
            self._load_key(pending),
            balance + pending.amount_fen.to_bytes(4) + bytes((LOAD,)) + pending.terminal_no,
        )
        atc = self.memory.online_atc.to_bytes(2)
        return balance + atc + bytes((own.version, own.algorithm)) + pending.random + mac1

    def _purchase_answer(self, pending: _Pending) -> bytes:
        self._key(pending.keys, KeyKind.PURCHASE)  # 9403 now rather than in the middle of DEBIT
        memory, own = self.memory, pending.keys
        counters = memory.balance_fen.to_bytes(4) + memory.offline_atc.to_bytes(2) + bytes(3)  # overdraft 0
        return counters + bytes((own.version, own.algorithm)) + pending.random

    def _load_key(self, pending: _Pending) -> bytes:
        seed = crypto.load_seed(pending.random, self.memory.online_atc)
        return crypto.session_key(pending.keys.algorithm, self._key(pending.keys, KeyKind.LOAD), seed)

    # --- the last steps -----------------------------------------------------------------------------------------

    def _credit(self, command: Command, _challenge: bytes) -> bytes:
        """圈存: check MAC2, add the amount, give the TAC."""
        pending = self._expected(CREDIT)
        parameters(command, 0x00, 0x00)
        data = exactly(command, 11)
        host_time, mac2 = data[:7], data[7:]
        own, memory = pending.keys, self.memory
        amount = pending.amount_fen.to_bytes(4)
        common = amount + bytes((LOAD,)) + pending.terminal_no + host_time
        if not compare_digest(crypto.purse_mac(own.algorithm, self._load_key(pending), common), mac2):
            raise StatusError(Sw.MAC_INVALID)
        balance_fen = memory.balance_fen + pending.amount_fen
        tac_input = balance_fen.to_bytes(4) + memory.online_atc.to_bytes(2) + common
        tac = crypto.tac(own.algorithm, self._key(own, KeyKind.TAC), tac_input)
        atc = memory.online_atc + 1
        self._commit(
            balance_fen=balance_fen,
            online_atc=atc,
            purse_log=self._logged(atc, pending, host_time),
            proofs={**memory.proofs, LOAD: (atc, mac2, tac)},
        )
        return tac

    def _debit(self, command: Command, _challenge: bytes) -> bytes:
        """消費: check the PSAM's MAC1, take the amount, give TAC and MAC2."""
        pending = self._expected(DEBIT)
        parameters(command, 0x01, 0x00)
        data = exactly(command, 15)
        psam_serial, moment, mac1 = data[:4], data[4:11], data[11:]
        own, memory = pending.keys, self.memory
        amount, kind = pending.amount_fen.to_bytes(4), bytes((pending.tti,))
        seed = crypto.purchase_seed(pending.random, memory.offline_atc, psam_serial)
        key = crypto.session_key(own.algorithm, self._key(own, KeyKind.PURCHASE), seed)
        expected = crypto.purse_mac(own.algorithm, key, amount + kind + pending.terminal_no + moment)
        if not compare_digest(expected, mac1):
            memory.mac1_failures += 1
            if memory.mac1_failures >= MAC1_FAILURES_MAX:
                memory.lock = Lock.FOR_EVER
            raise StatusError(Sw.MAC_INVALID)
        mac2 = crypto.purse_mac(own.algorithm, key, amount)
        tac_input = amount + kind + pending.terminal_no + psam_serial + moment
        tac = crypto.tac(own.algorithm, self._key(own, KeyKind.TAC), tac_input)
        atc = memory.offline_atc + 1
        rides = tuple(content for sfi, _, content in reversed(pending.updates) if sfi == RIDE_LOG)
        records = {record_id: content for sfi, record_id, content in pending.updates if sfi == CAPP_FILE}
        self._commit(
            balance_fen=memory.balance_fen - pending.amount_fen,
            offline_atc=atc,
            purse_log=self._logged(atc, pending, moment),
            ride_log=(rides + memory.ride_log)[:RIDE_RECORDS_MAX],
            capp_records={**memory.capp_records, **records},
            proofs={**memory.proofs, pending.tti: (atc, mac2, tac)},
            mac1_failures=0,
        )
        return tac + mac2

    def _logged(self, atc: int, pending: _Pending, moment: bytes) -> tuple[bytes, ...]:
        record = b"".join(
            (
                atc.to_bytes(2),
                bytes(3),
                pending.amount_fen.to_bytes(4),
                bytes((pending.tti,)),
                pending.terminal_no,
                moment,
            )
        )
        assert len(record) == LOG_BYTES
        return (record, *self.memory.purse_log)[:LOG_RECORDS_MAX]

    def _update_capp(self, command: Command, _challenge: bytes) -> bytes:
        """複合應用: keep a ride record until DEBIT makes it real."""
        pending = self._expected(UPDATE_CAPP)
        if command.p2 & 0x07:
            raise StatusError(Sw.P1_P2)
        sfi, record_id, content = command.p2 >> 3, command.p1, command.data
        if sfi == RIDE_LOG:
            if record_id != 0:
                raise StatusError(Sw.RECORD_NOT_FOUND)
            if len(content) > RIDE_BYTES:
                raise StatusError(Sw.NO_SPACE)
            exactly(command, RIDE_BYTES)
        elif sfi == CAPP_FILE:
            if record_id not in self.memory.capp_records:
                raise StatusError(Sw.RECORD_NOT_FOUND)
            if record_id in self.capp_locked:
                raise StatusError(Sw.CAPP_LOCKED)
            if len(content) > CAPP_BYTES_MAX:
                raise StatusError(Sw.NO_SPACE)
        else:
            raise StatusError(Sw.FILE_NOT_FOUND)
        if len(pending.updates) >= CAPP_UPDATES_MAX:
            raise StatusError(Sw.NO_SPACE)
        pending.updates.append((sfi, record_id, content))
        self._pending = pending
        return b""

    def _prove(self, command: Command, _challenge: bytes) -> bytes:
        """取交易認證: MAC2 and TAC of the newest transaction of a kind, named by the ATC after it."""
        if command.p2 in TTI_UNSUPPORTED:
            raise StatusError(Sw.NOT_SUPPORTED)
        if command.p1 != 0 or command.p2 not in (LOAD, PURCHASE, CAPP):
            raise StatusError(Sw.P1_P2)
        atc = int.from_bytes(exactly(command, 2))
        proof = self.memory.proofs.get(command.p2)
        if proof is None or proof[0] != atc:
            raise StatusError(Sw.PROOF)
        return proof[1] + proof[2]


__all__ = ["BALANCE_MAX_FEN", "CAPP", "LOAD", "PURCHASE", "PURSE_LOG", "Lock", "PurseCard"]
