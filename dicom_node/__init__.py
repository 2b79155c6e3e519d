"""The DICOM edges of the node: receiving, image reading, result objects, delivery, and the command line.

What this package decides: how the node speaks DICOM. What it does not know: neural networks
(:mod:`models`), work in motion (:mod:`workers`) and how rows are stored (:mod:`db`).
"""

__version__ = "0.1.0"
