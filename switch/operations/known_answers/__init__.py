"""Known-answer checks: every operation of a vector file is done by the code that serves in production.

A suite is a module with `CHECKERS`: (suite, op) -> function from vector to computed values. A vector without an `op`
is looked up as `published` or `vector`, by the list it stands in.
"""
