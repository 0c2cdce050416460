"""What the vault has to say about a load: whether the card is the card, and what makes it credit itself.

The ledger decides without keys; it gets what it needs here, as plain values and functions.
"""

from datetime import datetime

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import MacMismatch
from switch.domain.identifiers import diversifier_of
from switch.domain.transactions import CardRequest, Kind, Load, LoadConfirm, PurseConfirmData, Reversal
from switch.keys.purse import LoadTerms
from switch.keys.records import KeyMissingError
from switch.keys.vault import CardKeyRef, Vault
from switch.ledger.load_states import Loading, PurseLoad
from switch.messages.tlv import write_tlvs
from switch.registry.terminals import TerminalEntry

FOUR_BYTES_MAX = 0xFFFF_FFFF  # what a card can count


def host_moment(at: datetime) -> tuple[bytes, bytes]:
    """Host date and time as the card is told, BCD: YYYYMMDD and hhmmss in Shanghai."""
    local = at.astimezone(SHANGHAI)
    return bytes.fromhex(f"{local:%Y%m%d}"), bytes.fromhex(f"{local:%H%M%S}")


def loading_of(vault: Vault, request: CardRequest, entry: TerminalEntry) -> Loading | None:
    """What a load, its confirm or its reversal needs beside the request; None for all others."""
    if isinstance(request, Load):
        return _of_load(vault, request, entry)
    if isinstance(request, LoadConfirm) and request.purse is not None:
        data = request.purse
        return Loading(tac_holds=lambda load: _tac_holds(vault, data, load))
    if isinstance(request, Reversal) and request.of == Kind.LOAD:
        return Loading(int(entry.acquirer_id))
    return None


def _of_load(vault: Vault, request: Load, entry: TerminalEntry) -> Loading:
    agent, takes_cash = int(entry.acquirer_id), entry.cash_loads
    data = request.purse
    if data is None or data.balance_fen + request.amount_fen > FOUR_BYTES_MAX:
        return Loading(agent, takes_cash)
    card = CardKeyRef(data.algorithm_id, data.key_version, data.issuer_id, diversifier_of(data.asn))
    terms = LoadTerms(
        data.card_random, data.online_atc, data.balance_fen, request.amount_fen, data.terminal_no
    )
    try:
        vault.verify_load_mac1(card, terms, data.mac1)
    except (MacMismatch, KeyMissingError):
        return Loading(agent, takes_cash)

    def credit(at: datetime) -> bytes | None:
        host_date, host_time = host_moment(at)
        try:
            mac2 = vault.load_mac2(card, terms, host_date, host_time)
        except KeyMissingError:  # taken out of force since MAC1 was checked
            return None
        return write_tlvs({"DF21": host_date, "DF22": host_time, "DF23": mac2})

    return Loading(agent, takes_cash, card_proven=True, credit=credit)


def _tac_holds(vault: Vault, data: PurseConfirmData, load: PurseLoad) -> bool:
    """Whether the card itself says that this load, at the instant that it was told, brought it to this balance."""
    if data.tac is None or data.balance_after_fen != load.balance_before_fen + load.amount_fen:
        return False
    card = CardKeyRef(load.algorithm_id, load.key_version, load.issuer_id, diversifier_of(data.asn))
    terms = LoadTerms(
        load.card_random,
        load.online_atc,
        load.balance_before_fen,
        load.amount_fen,
        bytes.fromhex(load.psam),
    )
    try:
        vault.verify_load_tac(card, terms, *host_moment(load.authorised_at), data.tac)
    except (MacMismatch, KeyMissingError):
        return False
    return True
