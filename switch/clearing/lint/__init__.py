"""A clearing file checked by whoever gets or makes it: no database, no settings, nothing but the standard library and the layouts.

    python -m switch.clearing.lint FILE...          the same as `cardswitch files lint FILE...`

The switch stops at the first fault of a file that it receives. This goes on, names each fault by line, column, field and rule, says what
is expected, and calls the usual accidents by their names. Memory does not grow with the file.
"""

from switch.clearing.lint.faults import FAULTS_SHOWN, Fault, Report
from switch.clearing.lint.reading import lint_file

__all__ = ["FAULTS_SHOWN", "Fault", "Report", "lint_file"]
