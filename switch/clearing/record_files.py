"""Files whose lines are offline records, of depots (XF) and of other cities' merchants (DF): how a block of them goes through the intake."""

from collections.abc import Awaitable, Callable

from switch.clearing.layouts import Value
from switch.clearing.received import SQL, Block, Kind, Progress
from switch.purse.depot import Statement, TakenChunk

Note = Callable[[TakenChunk], list[Statement]]


def record_kind(
    addressee: str, sender: str, intake: Callable[[list[bytes], Note], Awaitable[object]]
) -> Kind:
    """How such a file is taken. intake: takes records, and writes in the same transaction what `note` gives it; sender: see Kind."""

    async def take(progress: Progress, block: Block) -> Progress:
        records = [bytes.fromhex(str(values["record"])) for values in block.lines]
        moved = progress

        def note(taken: TakenChunk) -> list[Statement]:
            nonlocal moved
            moved = progress.after(len(records), taken.results)
            chunk = {
                "file_no": progress.file_no,
                "first_line": block.first_line,
                "line_count": len(records),
                "today": taken.today,
                "first_entry": taken.first_entry,
            }
            return [(SQL["add_chunk"], chunk), moved.statement(taken.today)]

        await intake(records, note)
        return moved

    def check(_number: int, _values: dict[str, Value]) -> None:
        """The layout says all that a line must be; what a record is worth is for the intake."""

    return Kind(addressee=addressee, sender=sender, check=check, take=take)
