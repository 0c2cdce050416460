"""Everybody who takes part: institutions, merchants, terminals and their sessions, PSAMs, cards, fee rules.

Reads serve the hot path from bounded caches that other processes can invalidate. A cache here is only an accelerator:
whatever decides about money (generation of the keys, batch number, state of the batch, state of a card) is read again by
the ledger inside its own transaction.
"""
