"""Which result objects a destination gets: built-in profiles by kind of viewer, and a site's own.

Pure: settings and command line read profiles without loading any DICOM library.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from dicom_node.delivery.destination import Destination

Kind = Literal[
    "segmentation",
    "lesion_segmentation",
    "fractional_segmentation",
    "presentation_state",
    "secondary_capture",
    "key_objects",
    "text_report",
    "measurement_report",
    "measurement_report_all_classes",
    "mammography_cad",
    "encapsulated_pdf",
]
"""What a profile may ask for."""

SlideKind = Literal["slide_segmentation", "slide_report", "text_report"]
"""What a profile may ask for of studies of slides."""

Compressible = Literal["secondary_capture", "fractional_segmentation"]
"""Kinds that can be sent compressed."""

Syntax = Literal["native", "rle", "jpeg2000"]
"""Explicit VR Little Endian, RLE Lossless, or JPEG 2000 lossless."""

SrClass = Literal["auto", "3d", "comp", "both"]
CodeScheme = Literal["SCT", "SRT"]


_SYNTAXES_OF: Mapping[str, tuple[str, ...]] = {
    "secondary_capture": ("native", "rle", "jpeg2000"),
    "fractional_segmentation": ("native", "rle"),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One kind of object that a destination wants.

    Attributes
    ----------
    kind : str
        A key of :data:`dicom_node.results.builders.RESULT_BUILDERS`.
    fallback_for : str or None
        The kind that is sent rather than this one where the destination accepts its SOP class.
    """

    kind: str
    fallback_for: str | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What one sort of destination makes use of.

    Attributes
    ----------
    name : str
        How settings name it.
    kinds : tuple of str
        Members of :data:`Kind`. A kind that has nothing to say of a study gives no object.
    sr_class : str
        SOP class of the measurement report: ``"3d"`` Comprehensive 3D SR, ``"comp"`` Comprehensive SR,
        ``"both"``, or ``"auto"``: 3D where the association accepts it, the other where not.
    code_scheme : str
        Codes of the Mammography CAD SR: ``"SCT"``, or ``"SRT"`` for old workstations.
    picture : bool
        Whether to add the one object that every viewer shows: the presentation state of a bundle that
        localises, or the secondary capture of one that does not.
    transfer_syntaxes : mapping of str to str
        Member of :data:`Compressible` to member of :data:`Syntax`. Beside a compressed object there is the
        native one, which is sent where the destination does not accept the compression; JPEG 2000 of a
        segmentation is not offered, as few viewers decode it.
    seg_reference : bool
        Whether marked places in the measurement report are frames of the lesion segmentation instead of
        coordinates. OHIF does not load such a report.
    slide_kinds : tuple of str
        Members of :data:`SlideKind`.
    withdraws : bool
        Whether the results of an earlier revision are withdrawn by a rejection note (IHE IOCM).

    Raises
    ------
    ValueError
        If a value is none of these.
    """

    name: str
    kinds: tuple[Kind, ...]
    sr_class: SrClass = "auto"
    code_scheme: CodeScheme = "SCT"
    picture: bool = False
    withdraws: bool = False
    transfer_syntaxes: Mapping[str, str] = field(default_factory=dict)
    seg_reference: bool = False
    slide_kinds: tuple[SlideKind, ...] = ("slide_segmentation", "slide_report", "text_report")

    def __post_init__(self) -> None:
        allowed = get_args(Kind)
        if unknown := [kind for kind in self.kinds if kind not in allowed]:
            raise ValueError(f"profile {self.name}: no kind {unknown[0]!r}; there are {', '.join(allowed)}")
        of_slides = get_args(SlideKind)
        if strange := [kind for kind in self.slide_kinds if kind not in of_slides]:
            known = ", ".join(of_slides)
            raise ValueError(f"profile {self.name}: no kind {strange[0]!r} of slides; there are {known}")
        self._check_options()
        if self.sr_class not in get_args(SrClass) or self.code_scheme not in get_args(CodeScheme):
            raise ValueError(f"profile {self.name}: sr_class or code_scheme has an unknown value")

    def _check_options(self) -> None:
        for kind, syntax in self.transfer_syntaxes.items():
            if kind not in get_args(Compressible) or syntax not in _SYNTAXES_OF[kind]:
                offered = "; ".join(f"{name}: {', '.join(of)}" for name, of in _SYNTAXES_OF.items())
                raise ValueError(f"profile {self.name}: no transfer syntax {syntax!r} of {kind!r}; {offered}")
        needed = {"measurement_report", "lesion_segmentation"}
        if self.seg_reference and not needed <= set(self.kinds):
            raise ValueError(
                f"profile {self.name}: seg_reference needs the kinds {' and '.join(sorted(needed))}"
            )

    def wanted(self, *, localises: bool) -> tuple[Wanted, ...]:
        """Return the kinds to build and send.

        Parameters
        ----------
        localises : bool
            Whether the bundle's localisation was validated.
        """
        kinds: dict[str, None] = dict.fromkeys(self.kinds)
        if self.picture:
            kinds["presentation_state" if localises else "secondary_capture"] = None
        wanted: list[Wanted] = []
        for kind in kinds:
            if kind == "measurement_report":
                wanted += self._measurement_reports()
            elif self.transfer_syntaxes.get(kind, "native") != "native":
                preferred = f"{kind}_{self.transfer_syntaxes[kind]}"
                wanted += [Wanted(preferred), Wanted(kind, fallback_for=preferred)]
            elif kind == "mammography_cad" and self.code_scheme == "SRT":
                wanted.append(Wanted("mammography_cad_srt"))
            else:
                wanted.append(Wanted(kind))
        return tuple(wanted)

    def wanted_of_slides(self) -> tuple[Wanted, ...]:
        """Return the kinds to build and send of a study of slides."""
        return tuple(Wanted(kind) for kind in dict.fromkeys(self.slide_kinds))

    def _measurement_reports(self) -> list[Wanted]:
        form = "_segments" if self.seg_reference else ""
        three_d, comprehensive = f"measurement_report{form}", f"measurement_report_2d{form}"
        return {
            "3d": [Wanted(three_d)],
            "comp": [Wanted(comprehensive)],
            "both": [Wanted(three_d), Wanted(comprehensive)],
            "auto": [Wanted(three_d), Wanted(comprehensive, fallback_for=three_d)],
        }[self.sr_class]


UNKNOWN = "unknown"
"""Name of the profile of a destination that names none."""

BUILT_IN: Mapping[str, Profile] = {
    profile.name: profile
    for profile in (
        # OHIF draws regions of the measurement report and the three bands, and prints the text.
        Profile(
            "ohif",
            ("segmentation", "lesion_segmentation", "text_report", "measurement_report"),
            slide_kinds=("slide_report", "text_report"),  # it shows no fractional segmentation
        ),
        # Stone draws marks of Comprehensive SR alone, and no segmentation.
        Profile(
            "stone",
            ("text_report", "measurement_report"),
            sr_class="comp",
            picture=True,
            slide_kinds=("text_report",),
        ),
        # A breast workstation reads CAD marks; its archive filters what it does not know.
        Profile(
            "workstation",
            ("mammography_cad", "text_report", "measurement_report", "presentation_state", "key_objects"),
            withdraws=True,
            slide_kinds=("text_report",),
        ),
        # Something for everybody: reports for machines and readers, bands, one picture, a flag when positive.
        Profile(
            UNKNOWN,
            ("segmentation", "text_report", "measurement_report", "key_objects"),
            sr_class="comp",  # the one class whose regions every viewer that we know of draws
            picture=True,
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Route:
    """A destination and what it gets."""

    destination: Destination
    profile: Profile


def split_route(text: str) -> tuple[str, str]:
    """Split ``AE@HOST:PORT/PROFILE`` into address and profile name; without one it is :data:`UNKNOWN`."""
    address, slash, name = text.rpartition("/")
    # An AE title may hold a slash, but it stands before the port.
    if slash and "@" in address and ":" in address.rpartition("@")[2]:
        return address, name
    return text, UNKNOWN


def profile_named(name: str, own: Iterable[Profile] = ()) -> Profile:
    """Return a profile by its name.

    Parameters
    ----------
    name : str
        Of a built-in profile or of one of the site's own.
    own : iterable of Profile
        The site's.

    Raises
    ------
    ValueError
        If there is none.
    """
    profiles = {**BUILT_IN, **{profile.name: profile for profile in own}}
    if name not in profiles:
        raise ValueError(f"there is no profile {name!r}; there are {', '.join(profiles)}")
    return profiles[name]


def kinds_for(
    routes: Collection[Route], wanted_by: Callable[[Profile], tuple[Wanted, ...]]
) -> tuple[str, ...]:
    """Return every kind that any destination wants, or those of :data:`UNKNOWN` where there is none.

    Parameters
    ----------
    routes : collection of Route
        The node's destinations.
    wanted_by : callable
        The kinds that a profile asks for: of :meth:`Profile.wanted`, or :meth:`Profile.wanted_of_slides`.
    """
    profiles = [route.profile for route in routes] or [BUILT_IN[UNKNOWN]]
    return tuple(dict.fromkeys(wanted.kind for profile in profiles for wanted in wanted_by(profile)))
