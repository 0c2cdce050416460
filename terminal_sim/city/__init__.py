"""The virtual city: people, tills and buses that live one business day against a real switch, seen only from outside.

`plan` draws the city from a seed, `papers` writes what the switch must be told, `house` runs the switch as its operator would,
`books` keeps the city's own expectation, `shopping`, `troubles` and `transit` make the traffic, `files` reads what the switch
wrote, `day` puts it in order, and `summary` tells how it went.
"""
