"""The errors of inference.

::

    ModelsError
    ├── RegistryError                a task or architecture file is not what the registry needs
    ├── UnknownTaskError             no task of this name
    ├── UnknownArchitectureError     no architecture of this name
    ├── PreprocessingError           an image cannot be put on the network's grid
    │   └── NoBreastError            ... because no breast was found in it
    ├── CalibrationError             too few or unusable scores to calibrate with
    ├── DeviceUnavailableError       the processor asked for is not there
    ├── DeviceMemoryError            no memory was left on it for a network or a pass
    ├── BackendError                 a backend cannot run a network, or answers otherwise than torch
    ├── PublishedWeightsError        a file of published weights is not that of the architecture
    └── BundleError                  a bundle is refused
        ├── BundleIncompleteError    a file or a field is missing, or a file too many
        ├── BundleDigestError        the content is not what the manifest, or the caller, says
        ├── UnsafeBundleError        a kind of file that could run code or lead outside the folder
        ├── BundleFormatError        a file does not parse or a field has a wrong value
        ├── UnsupportedBundleError   made for a task, architecture or preprocessing not known here
        ├── WeightsError             weights that are not finite or do not fit the architecture
        └── GoldenMismatchError      the network does not answer as it did when it was released

Messages name bundles, fields and files, never anything of a patient.
"""

from __future__ import annotations


class ModelsError(Exception):
    """Inference failed; the message says what to do next."""


class RegistryError(ModelsError):
    """A plugin file breaks the registry's rule; correct or remove that file."""


class UnknownTaskError(ModelsError):
    """No task has this name; use one of those listed."""


class UnknownArchitectureError(ModelsError):
    """No architecture has this name; use one of those listed."""


class PreprocessingError(ModelsError):
    """The image cannot be put on the network's grid."""


class NoBreastError(PreprocessingError):
    """No breast was found in the image; the gate refuses it."""


class CalibrationError(ModelsError):
    """The scores cannot be calibrated; add validation cases of both classes."""


class DeviceUnavailableError(ModelsError):
    """The processor asked for is not there; use ``cpu`` or ``auto``."""


class DeviceMemoryError(ModelsError):
    """No memory was left for the network; end what else runs on the GPU, or give the task another one."""


class BackendError(ModelsError):
    """The backend cannot run this network, or answers otherwise than torch; use ``torch``."""


class PublishedWeightsError(ModelsError):
    """The file does not hold the published weights of the architecture; fetch it again, or another one."""


class BundleError(ModelsError):
    """The bundle is refused; add it again from where it was released."""


class BundleIncompleteError(BundleError):
    """A file or field is missing, or there is a file too many."""


class BundleDigestError(BundleError):
    """The content differs from its digest; copy the bundle again from where it was released."""


class UnsafeBundleError(BundleError):
    """The folder holds something that a bundle must not hold; ask who released it."""


class BundleFormatError(BundleError):
    """A file of the bundle does not say what it must; ask who released it."""


class UnsupportedBundleError(BundleError):
    """The bundle needs another version of this program."""


class WeightsError(BundleError):
    """The weights are not finite or do not fit the architecture; ask who released it."""


class GoldenMismatchError(BundleError):
    """The network does not give its released answers on this machine; do not use it here."""
