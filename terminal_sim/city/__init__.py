"""The virtual city: people, tills and buses that live one business day against a real switch, seen only from outside.

`plan` draws the city from a seed, `papers` writes what the switch must be told, `house` runs the switch as its operator would and
`bank_house` its bank, `books` keeps the city's own expectation, `shopping`, `loading`, `transit` and `hospital` make the traffic, `troubles` and
`outage` make it hard, `files` reads what the switch wrote, `reckoning` compares accounts, `day` puts it in order, and `summary` tells how it went.
"""
