"""What the settings say about the interop centre."""

from switch.clearing.calendar_cn import WorkdayCalendar
from switch.clearing.centre import CentreTerms
from switch.clearing.foreign import Deadline
from switch.domain.errors import InputRefused
from switch.operations.commands.asking import actor
from switch.settings import Settings


def centre_terms(settings: Settings) -> CentreTerms:
    """What the settings say about the centre in this installation. Raises InputRefused when it is none."""
    if not settings.interop.serve:
        raise InputRefused("this installation is no interop centre: interop.serve is not set")
    at = settings.interop
    return CentreTerms(
        at.centre_id,
        settings.institution.own_id,
        settings.clearing_folder,
        WorkdayCalendar(settings.clearing.calendar_file).is_workday,
        actor(),
        at.forward_by,
        Deadline(at.answer_days, at.answer_by),
        at.fund_by,
    )
