"""The registry of network architectures: one file each, with one ``build(**arguments)``.

The file's name is the architecture's name, and its network is a :class:`models.networks.ImageNetwork`.
Listing names imports none of the files, so that a bundle can be checked without torch. What several
architectures share lives in :mod:`models.families`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from models.errors import RegistryError, UnknownArchitectureError

if TYPE_CHECKING:
    from torch import nn


def architecture_names() -> tuple[str, ...]:
    """Names of all architectures, sorted."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    """Build a network with fresh weights.

    Its forward pass takes ``(N, C, rows, columns)`` float32 and returns the logits ``(N, K)`` and the class
    activation maps ``(N, K, h, w)``, whose cells tile the input, or None for a head that has no maps.

    Parameters
    ----------
    name : str
        One of :func:`architecture_names`.
    arguments : Mapping
        Keyword arguments of the architecture's ``build``.

    Raises
    ------
    UnknownArchitectureError
        If there is no such architecture.
    RegistryError
        If its file has no ``build`` or the arguments do not fit it.
    """
    if name not in architecture_names():
        raise UnknownArchitectureError(
            f"No architecture is called {name!r}; there are: {', '.join(architecture_names())}."
        )
    module = importlib.import_module(f"{__name__}.{name}")
    builder = getattr(module, "build", None)
    if builder is None:
        raise RegistryError(f"models/architectures/{name}.py has no build(); add one.")
    known = inspect.signature(builder).parameters
    if unknown := sorted(set(arguments) - set(known)):
        raise RegistryError(
            f"The arguments do not fit the architecture {name!r}: it has no {', '.join(unknown)}; it has: "
            f"{', '.join(known)}."
        )
    try:
        network: nn.Module = builder(**arguments)
    except (TypeError, ValueError) as error:
        raise RegistryError(f"The arguments do not fit the architecture {name!r}: {error}") from error
    return network
