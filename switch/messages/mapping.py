"""A message to the typed request that it is.

Everything of form is checked here (answer 30, FormatError): mandatory fields, sub-structures, fields that contradict each
other. Everything of substance is the ledger's: a zero amount, an unknown card, a wrong original. In between lie requests that are
well formed and can never be approved: they become Refused, with their answer (14, 40, 57).

A field that a message need not carry is tolerated and ignored. Refused as contradictions are: a PIN (26, 52, DF51, or 53
announcing one) where none belongs, 22 against the PIN block, 26 without a PIN, field 55 with purse tags in a load to the
online account, a clear track 2 of another card, and field 61 of a reversal that does not name the reversal's own batch and trace.
"""

from collections.abc import Callable, Mapping

from switch.domain.errors import FormatError
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Balance,
    CardRequest,
    Completion,
    CompletionVoid,
    Kind,
    PreAuthorisation,
    PreAuthorisationVoid,
    Purchase,
    Refund,
    Refused,
    Request,
    Reversal,
    Void,
)
from switch.messages.administration import ADMINISTRATIVE_READERS
from switch.messages.catalogue import (
    CASH_WITHDRAWAL,
    CATALOGUE,
    CODES,
    KIND_OF,
    REVERSIBLE,
    TYPES_NOT_SUPPORTED,
)
from switch.messages.codec import UnsupportedMti
from switch.messages.loads import read_load, read_load_confirm, read_load_reversal
from switch.messages.message import Fields, Message
from switch.messages.parts import (
    ACCOUNTS,
    MISSING,
    NO_TAGS,
    amount_of,
    card_of,
    check_head,
    check_no_pin,
    check_track2,
    need,
    original_of,
    pin_of,
    tags_of,
)
from switch.messages.structures import REVERSAL_REASONS

Reader = Callable[[Fields, CardNumber, AccountKind], CardRequest]


def read_request(message: Message) -> Request:
    """The request in a message that decode has read and whose MAC, where it needs one, was good.

    FormatError (30) names field and rule; UnsupportedMti (close) when it is not a request.
    """
    mti = message.mti
    fields = message.fields
    if mti in ADMINISTRATIVE_READERS:
        return ADMINISTRATIVE_READERS[mti](fields)
    if mti not in _CARD_MTIS:
        raise UnsupportedMti("message type is an answer: not for a switch")
    try:
        digits, code, _, _, condition, _, _, _, custom, _ = (
            fields[2],
            fields[3],
            fields[11],
            fields[22],
            fields[25],
            fields[41],
            fields[42],
            fields[49],
            fields[60],
            fields[64],
        )
    except KeyError as missing:
        raise FormatError(MISSING, field=str(missing.args[0])) from None
    check_head(fields)
    card = card_of(digits)
    if 35 in fields:
        check_track2(fields)
    if mti == "0400":
        return _reversal(fields, card)
    kind = KIND_OF.get((mti, code[:2], condition, custom[:2]))
    if kind is None:
        return _unknown(mti, fields, card)
    if kind is Kind.LOAD:
        return read_load(fields, card)
    if kind is Kind.LOAD_CONFIRM:
        return read_load_confirm(fields, card)
    account = ACCOUNTS.get(code[2:4])
    if account is None or code[4:] != "00":
        return Refused(
            card, Fen(int(fields.get(4, "0"))), "40", "account types are not those of this transaction"
        )
    return _READERS[kind](fields, card, account)


def _purchase(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    pin = None
    if 55 in fields or 52 in fields or 53 in fields or 26 in fields or fields[22][2] == "1":
        pin = pin_of(fields, tags_of(fields))
    if 4 not in fields:
        raise FormatError(MISSING, field="4")
    return Purchase(
        card, account, Fen(int(fields[4])), pin, fields[22], fields.get(23, ""), fields.get(14, "")
    )


def _balance(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    return Balance(card, account, pin_of(fields, tags_of(fields)), fields[22])


def _pre_authorisation(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    return PreAuthorisation(card, account, amount_of(fields), pin_of(fields, tags_of(fields)), fields[22])


def _void(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    check_no_pin(fields, tags_of(fields))
    amount_fen, original = amount_of(fields), original_of(fields)
    return Void(card, account, amount_fen, original, need(fields, 37), need(fields, 38), fields[22])


def _refund(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    check_no_pin(fields, tags_of(fields))
    scheme = fields.get(63)
    if scheme is not None and len(scheme) < 3:
        raise FormatError("card scheme takes three characters", field="63")
    return Refund(card, account, amount_of(fields), original_of(fields), need(fields, 37), fields[22])


def _pre_authorisation_void(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    check_no_pin(fields, tags_of(fields))
    return PreAuthorisationVoid(
        card, account, amount_of(fields), original_of(fields), need(fields, 38), fields[22]
    )


def _completion(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    check_no_pin(fields, tags_of(fields))
    return Completion(
        card, account, amount_of(fields), original_of(fields), need(fields, 38), fields[22], advice=False
    )


def _completion_advice(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    check_no_pin(fields, tags_of(fields))
    return Completion(
        card, account, amount_of(fields), original_of(fields), need(fields, 38), fields[22], advice=True
    )


def _completion_void(fields: Fields, card: CardNumber, account: AccountKind) -> CardRequest:
    check_no_pin(fields, tags_of(fields))
    amount_fen, original = amount_of(fields), original_of(fields)
    return CompletionVoid(card, account, amount_fen, original, need(fields, 37), need(fields, 38), fields[22])


def _reversal(fields: Fields, card: CardNumber) -> Reversal:
    """A 0400 is never Refused, not even one of a request that was: it is told 00, 12 or 25, or it would be sent for ever."""
    code, custom = fields[3], fields[60]
    original = original_of(fields)
    if original.stan != int(fields[11]) or original.batch_no != int(custom[2:8]):
        raise FormatError("does not name this reversal's own batch and trace", field="61")
    reason = need(fields, 39)
    if reason not in REVERSAL_REASONS:
        raise FormatError("reason is not one of the table", field="39")
    tags = tags_of(fields) if 55 in fields else NO_TAGS
    check_no_pin(fields, tags)
    of = REVERSIBLE.get((code[:2], fields[25], custom[:2]), Kind.REFUSED)
    return Reversal(
        card=card,
        account=ACCOUNTS.get(code[2:4], AccountKind.ONLINE),
        amount_fen=amount_of(fields),
        original=original,
        of=of,
        reason=reason,
        entry_mode=fields[22],
        processing_code=code,
        purse=read_load_reversal(code, tags) if of is Kind.LOAD else None,
    )


def _unknown(mti: str, fields: Fields, card: CardNumber) -> Refused:
    """No row of the catalogue: 57 for cash withdrawal, 40 for a function that there is not, 30 for a contradiction."""
    code, condition, custom_type = fields[3][:2], fields[25], fields[60][:2]
    amount_fen = Fen(int(fields.get(4, "0")))
    if code == CASH_WITHDRAWAL:
        return Refused(card, amount_fen, "57", "cash withdrawal is forbidden")
    if code not in CODES or custom_type in TYPES_NOT_SUPPORTED:
        return Refused(card, amount_fen, "40", "function not supported")
    rows = [row for row in CATALOGUE if (row.mti, row.code) == (mti, code)]
    if not rows:
        raise FormatError("processing code does not go with the MTI", field="3")
    if all(row.type != custom_type for row in rows):
        raise FormatError("60.1 does not go with the processing code", field="60")
    assert all((row.type, row.condition) != (custom_type, condition) for row in rows), (
        "else it were in the catalogue"
    )
    raise FormatError("condition code does not go with 60.1", field="25")


_CARD_MTIS = frozenset({"0100", "0200", "0220", "0400"})
_READERS: Mapping[Kind, Reader] = {
    Kind.BALANCE: _balance,
    Kind.PURCHASE: _purchase,
    Kind.VOID: _void,
    Kind.REFUND: _refund,
    Kind.PRE_AUTHORISATION: _pre_authorisation,
    Kind.PRE_AUTHORISATION_VOID: _pre_authorisation_void,
    Kind.COMPLETION: _completion,
    Kind.COMPLETION_VOID: _completion_void,
    Kind.COMPLETION_ADVICE: _completion_advice,
}
assert {row.kind for row in CATALOGUE} == {*_READERS, Kind.LOAD, Kind.LOAD_CONFIRM}
