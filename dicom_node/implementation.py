"""How this software names itself in associations, and in the files that it writes (PS3.7 D.3.3.2)."""

from __future__ import annotations

# The same for each of its releases.
IMPLEMENTATION_CLASS_UID = "2.25.335047824521173192212125332204764371636"
IMPLEMENTATION_VERSION_NAME = "DICOM_NODE"
