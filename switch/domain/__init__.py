"""Words of the trade: plain values, no I/O, standard library only."""
