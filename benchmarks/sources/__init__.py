"""Five published systems, each run as its source wrote it and again with an honest split.

``python -m benchmarks.sources s3 --data FOLDER --out docs/experiments --work FOLDER`` trains every variant
of a source under both protocols and writes the numbers side by side, with intervals. What a source
leaves open is decided in its module; sizes are flags, and the page says which were used.
"""
