"""The colours in which viewers show what the model found, from faint to strong.

CIELab, as Recommended Display CIELab Value (0062,000D) and graphic layers take them.
"""

from __future__ import annotations

from highdicom.color import CIELabColor

YELLOW = CIELabColor(90.0, -8.0, 75.0)
ORANGE = CIELabColor(70.0, 35.0, 75.0)
RED = CIELabColor(53.2, 80.1, 67.2)
