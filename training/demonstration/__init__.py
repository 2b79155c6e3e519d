"""The demonstration bundle: phantoms, a small network trained on them, calibrated, measured and packed."""
