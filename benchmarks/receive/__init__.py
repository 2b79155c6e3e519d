"""Receiving against other receivers, on the same files in one run; run with ``python -m``."""
