"""The pure heart of inference: from image views to calibrated probabilities and evidence.

Knows no DICOM file, no database row, no queue. Everything it needs is passed in.
"""
