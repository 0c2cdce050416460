"""Evidence 存證: the seal over a day's journal and files, proofs about single transactions, and the day as a plain-text journal.

`merkle`, `seal_file`, `proof` and `verify` know no database: with them anybody can check what was sealed. `leaves` and `sealing` make seals,
`proving` takes proofs out of the books, `plain_text` writes a day for other people's accounting tools.
"""
