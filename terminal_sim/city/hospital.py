"""The next morning at the hospital: the first day of a medical policy, and purchases that two accounts of one person pay together."""

from datetime import date, timedelta
from random import Random

from switch.domain.transactions import AccountKind
from terminal_sim.city.house import House
from terminal_sim.city.street import Street
from terminal_sim.city.tally import CountedClient

OWN_PAY_PPM = {"8062": 300_000, "5912": 200_000}  # hospitals, pharmacies
HOSPITAL = "8062"
PATIENTS = 8
AMOUNT_FEN = (1_000, 12_000)


def own_share_fen(amount_fen: int) -> int:
    """What a patient pays himself at the hospital: rounded half up (docs/medical.md, section 2)."""
    return (amount_fen * OWN_PAY_PPM[HOSPITAL] + 500_000) // 1_000_000


async def set_policy(house: House, today: date) -> None:
    """From tomorrow on; a policy never begins on a day that is already open."""
    for category, ppm in OWN_PAY_PPM.items():
        await house.run(
            *("medical", "set", "--category", category, "--own-pay-ppm", str(ppm)),
            *("--from", f"{today + timedelta(days=1)}", "--reason", "the city's first policy"),
        )


async def first_patients(street: Street, client: CountedClient, random: Random) -> int:
    """Each purchase is one answer, and takes its shares from two accounts; every second one is voided. Returns their number."""
    books = street.books
    for number in range(PATIENTS):
        amount = random.randint(*AMOUNT_FEN)
        card = street.card_that_can_pay(random, amount, AccountKind.MEDICAL, AccountKind.ONLINE)
        holder, own = card.holder, own_share_fen(amount)
        with street.held(holder):
            outcome = await client.purchase(card.data, amount, account=AccountKind.MEDICAL, pin=holder.pin)
            code = outcome.answer.code if outcome.answer else None
            books.expect("answer at the hospital", expected="00", found=code)
            if outcome.answer is None or outcome.receipt is None:
                continue
            books.book(holder, outcome.receipt, outcome.answer)
            voided = number % 2
            if voided:
                undone = await client.void(outcome.receipt)
                code = undone.answer.code if undone.answer else None
                books.expect("answer to a void at the hospital", expected="00", found=code)
                if undone.answer is not None and undone.receipt is not None:
                    books.book(holder, undone.receipt, undone.answer)
                continue
            books.balances[holder.number, AccountKind.MEDICAL] += own
            books.balances[holder.number, AccountKind.ONLINE] -= own
    return PATIENTS
