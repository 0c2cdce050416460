"""Offline purse records: what they are, whether they are good, taking them in once, and what follows from them."""
