"""Cases 差錯: what is asked about a transaction, by whom, until when, who checked it, and what it moves."""
