"""Storage commitment (PS3.4 annex J): its data sets, its associations, and what the node can answer for.

Who is asked when, and what follows from an answer, is decided in :mod:`workers.committing`.
"""
