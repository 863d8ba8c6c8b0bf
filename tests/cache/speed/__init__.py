"""How fast the cache reads and writes: against the original's store, and against what the machine can do at all.

The arms take turns in one process, a few batches each, and a figure is the median over turns.
`pytest -m slow -s -n0 tests/cache/speed` prints what is reached beside what is wished for.
"""
