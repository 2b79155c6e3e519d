"""Keeps libraries out of a process that never uses them.

pydicom imports every decoder that is installed, numpy and an HTTP client, whether or not a pixel is ever
looked at or a file downloaded. In a listener they would be a third of its memory, and code that a stranger's
bytes should not come near.
"""

from __future__ import annotations

import sys

UNUSED_LIBRARIES = (
    *("gdcm", "PIL", "pylibjpeg", "openjpeg", "libjpeg", "rle", "jpeg_ls"),
    *("numpy", "requests"),
)


def forbid_unused_libraries() -> None:
    """Make imports of these libraries fail as if they were not installed; call it before pydicom is imported.

    pydicom takes a library that cannot be imported for one that is not there, and does without. What is
    imported already stays.
    """
    for name in UNUSED_LIBRARIES:
        # None is Python's own mark of a module that must not be imported.
        sys.modules.setdefault(name, None)  # type: ignore[arg-type]
