"""The laboratory of evidence: whether search and sharing are worth what they cost, measured with intervals.

See `docs/evidence.md`. `python -m benchmarks.evidence --out runs/evidence` trains and measures; every training and
evaluation is kept, so that an interrupted laboratory goes on where it was.
"""
