"""Which UID a result gets, and nothing else.

Every UID is ``2.25.<uuid5>`` (PS3.5 B.2) of what the thing is made from: the kind of object, the model, its
configuration and the source instances. The same model on the same images therefore gives the same UIDs, so
that a PACS which receives a result twice keeps one copy; another model or one more image gives new ones.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable

from models.contract import BundleIdentity

# Chosen once at random; another value would give every result of every node a new identity.
_NAMESPACE = uuid.UUID("6f0e5d0c-9b0a-4f5c-8c1b-2f1d6a5b7e93")


def uid_for(
    kind: str,
    bundle: BundleIdentity,
    source_uids: Iterable[str],
    ordinal: int = 0,
    *,
    revision: int = 1,
) -> str:
    """Give the UID of one thing that a model made from some images.

    Parameters
    ----------
    kind : str
        What is named, such as ``"segmentation"`` or ``"segmentation.series"``.
    bundle : models.contract.BundleIdentity
        The model: the digest of its content, and that of its preprocessing parameters, temperature and
        operating points.
    source_uids : iterable of str
        SOP Instance UIDs of the images it is made from; their order does not matter.
    ordinal : int, optional
        Tells apart several things of one kind made from the same images.
    revision : int, optional
        The study revision, 1 at first. Later ones say that they are, and name what they replace: even from
        the same images they make other objects than the first.

    Returns
    -------
    str
        A UID of at most 44 characters.
    """
    if revision > 1:
        kind = f"{kind}.revision-{revision}"
    return _named([kind, bundle.digest, bundle.configuration_digest, sorted(source_uids), ordinal])


def device_uid(bundle: BundleIdentity) -> str:
    """Give the Device UID (0018,1002) of a bundle: another weight or another setting is another device.

    Parameters
    ----------
    bundle : models.contract.BundleIdentity
        As for :func:`uid_for`.

    Returns
    -------
    str
        The UID by which reports name the algorithm (PS3.16 TID 1004; IHE AIR).
    """
    return _named(["device", bundle.digest, bundle.configuration_digest])


def creator_uid(serial_number: str) -> str:
    """Give the Instance Creator UID (0008,0014) of an installation.

    Parameters
    ----------
    serial_number : str
        The node's Device Serial Number.

    Returns
    -------
    str
        The same UID for the same serial number.
    """
    return _named(["creator", serial_number])


def _named(parts: list[object]) -> str:
    # JSON keeps the parts apart: ("a", "bc") and ("ab", "c") must not meet in one name.
    name = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"
