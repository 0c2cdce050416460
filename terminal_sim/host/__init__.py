"""Hosts that own the money: a bank and a social-security centre, with books of their own and a script of bad behaviour."""
