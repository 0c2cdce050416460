"""Rules for risk on offline records, as data: what they may ask, how they are tried on history, and what they mark. docs/risk.md."""
