"""Results on their way out: one module per way (DIMSE C-STORE today), each sending stored bytes unchanged.

What this package decides: what one answer of a destination means. It does not know jobs, retries or rows.
"""
