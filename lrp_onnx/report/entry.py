"""What the HTML report shows, as data: photos with maps, pictures that failed, and the run."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lrp_onnx.maps.chain import Chain, parse_chain
from lrp_onnx.maps.flat import flat
from lrp_onnx.maps.resample import Map as Heatmap
from lrp_onnx.maps.resample import as_map, resample
from lrp_onnx.report.marks import with_marks
from lrp_onnx.report.render import check_picture
from lrp_onnx.report.words import preprocessing_in_words, rules_in_words
from lrp_onnx.runtime.explainer import Explainer
from lrp_onnx.runtime.explanation import Explanation, measure_of, probabilities_of
from lrp_onnx.runtime.images import Picture
from lrp_onnx.runtime.installation import installed
from lrp_onnx.runtime.preprocess import Box

SCORES = ("probability", "mean", "score")
"""What a class's value may be: a probability, the mean of a feature map, or any other score."""

BEFORE = "relevance before post-processing, for and against; the white line is the region kept"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Map:
    """The relevance of one photo's pixels for one class."""

    target: int
    name: str = ""
    """The class's name; empty where it has none."""
    score: float | None = None
    """The class's value, see `Entry.scores_are`; None where it is not known."""
    heatmap: Heatmap
    """(H, W), finite, any scale: over `Entry.box`; negative values speak against the class."""
    region: NDArray[np.bool_] | None = None
    """(s, s): the region that C3 keeps, over `Entry.box`."""
    sums: Mapping[str, float] | None = None
    """Sums of the relevance before post-processing: ``all``, ``positive`` and ``negative``."""
    start_value: float | None = None
    """The relevance at the model's output."""

    @classmethod
    def of(cls, explanation: Explanation, *, chain: Chain | None = None) -> Map:
        """The map of an explanation: its heatmap, or the signed relevance before C3 or C1C where
        that is known, with the region that they keep.

        Args:
            explanation: one class of one photo.
            chain: the post-processing of its heatmap. Negative values of a chain that keeps only
                relevance for the class count as zero.
        """
        raw, region, shown = explanation.heatmap_raw, explanation.region, explanation.heatmap
        one_sided = chain is not None and chain.colors == "sequential"
        if raw is not None and (one_sided or region is not None):
            shown = resample(raw, shown.shape, method="bilinear")
            if region is None and chain is not None:
                region = chain.region(shown)
        elif one_sided:
            shown = shown.clip(0, None)
        kind, target = explanation.kind, explanation.target
        return cls(
            target=target,
            name=explanation.target_name,
            score=float(probabilities_of(kind, explanation.scores[None])[0, target]),
            heatmap=flat(shown),
            region=region,
            sums=explanation.sums,
            start_value=explanation.start_value,
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Entry:
    """A photo, what the model says about it, and a map for one class or several."""

    name: str
    """The path as it is shown; any characters."""
    photo: Picture
    """(H, W, 3) uint8 RGB: the whole picture."""
    box: Box
    """The part of it that the model sees."""
    top5: Sequence[tuple[int, str, float]]
    """(class index, name or "", value), best first; at least one."""
    maps: Sequence[Map]
    """At least one. All maps of a photo are shown on one scale."""
    label: int | None = None
    """The true class, where it is known."""
    label_name: str = ""
    scores_are: str = "probability"
    """What values of classes are: one of `SCORES`."""

    def __post_init__(self) -> None:
        if not self.maps or not self.top5:
            raise ValueError(f"{self.name!r} needs at least one map and one class")
        if self.scores_are not in SCORES:
            raise ValueError(f"scores_are is one of {', '.join(SCORES)}; got {self.scores_are!r}")
        check_picture(self.photo)
        height, width = self.photo.shape[:2]
        box = self.box
        inside = box.left + box.width <= width and box.top + box.height <= height
        if min(box.left, box.top) < 0 or min(box.width, box.height) < 1 or not inside:
            raise ValueError(f"{box} does not lie in {self.name!r} of {width}×{height} pixels")
        for shown in self.maps:
            as_map(shown.heatmap)

    @property
    def right(self) -> bool | None:
        """Whether the best class is the true one; None where that is not known."""
        return None if self.label is None else self.top5[0][0] == self.label

    @classmethod
    def of(
        cls,
        explanations: Sequence[Explanation],
        *,
        name: str | None = None,
        label: int | None = None,
        label_name: str = "",
        chain: Chain | None = None,
    ) -> Entry:
        """The explanations of one photo, one per class.

        Args:
            explanations: at least one, all of the same photo.
            name: None for the photo's path.
            label: the true class, where it is known.
            label_name: its name.
            chain: the post-processing of the heatmaps, see `Map.of`.
        """
        first = explanations[0]
        alike = len({explanation.marked for explanation in explanations}) == 1
        return cls(
            name=str(first.path) if name is None else name,
            photo=with_marks(first.photo, first.box, first) if alike else first.photo,
            box=first.box,
            top5=first.top5,
            maps=[Map.of(explanation, chain=chain) for explanation in explanations],
            label=label,
            label_name=label_name,
            scores_are=measure_of(first.kind),
        )


@dataclass(frozen=True, slots=True)
class Failed:
    """A picture that could not be explained."""

    name: str
    """The path as it is shown."""
    reason: str
    """One sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What was done. Every text may hold any characters; what is empty is not shown."""

    model: str
    """Name of the model's file."""
    sha256: str = ""
    """Of the model's file, in hexadecimal."""
    composite: str = ""
    composite_in_words: str = ""
    rules: Mapping[str, str] = field(default_factory=dict)
    """Rule → where it is used and what it does, in words."""
    start: str = ""
    """What relevance starts from: a key of `words.STARTS`, or a sentence."""
    post: str = ""
    """The post-processing as text, ``none`` for none (see `maps.chain`)."""
    shown: str = ""
    """Which map the colours show, in words."""
    resolution: str = ""
    """Where relevance stops, in words."""
    preprocessing: str = ""
    """How pictures become the model's input, in words."""
    preprocessing_from: str = ""
    """Where that comes from, for example "the model's file"."""
    classes_from: str = ""
    """Where the class names come from."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Library → version."""
    provider: str = ""
    """Where the model ran: ``cpu`` or ``cuda``."""
    when: str = ""
    command: str = ""
    conservation: Mapping[str, str] = field(default_factory=dict)
    """Further figures, name → value; what the maps' sums tell is shown in any case."""
    notes: Sequence[str] = ()
    """Assumptions and warnings: they stand at the top of the page."""

    @classmethod
    def of(
        cls,
        explainer: Explainer,
        model: Path,
        *,
        chain: Chain | None = None,
        composite_in_words: str = "",
        preprocessing_from: str = "",
        classes_from: str = "",
        when: str = "",
        command: str = "",
        conservation: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
    ) -> Run:
        """What an explainer's file says about itself, and what only the caller knows.

        Args:
            explainer: the explainer of all photos.
            model: the file that it was made from; it is read for its hash.
            chain: the post-processing that is shown; None for the file's own.
            composite_in_words, preprocessing_from, classes_from, when, command, conservation,
                notes: see the fields.
        """
        contract = explainer.contract
        with model.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        stops = contract.resolution
        places = "×".join(map(str, stops or ()))
        chain = parse_chain(contract.post) if chain is None else chain
        before = chain.colors == "sequential" and explainer.gives_raw
        return cls(
            model=model.name,
            sha256=digest,
            composite=contract.composite,
            composite_in_words=composite_in_words,
            rules=rules_in_words(contract.rules),
            start=contract.start_value,
            post=str(chain),
            shown=BEFORE if before else "",
            resolution=f"a feature map of {places} places" if stops else "the model's input",
            preprocessing=(
                preprocessing_in_words(explainer.preprocessing)
                if explainer.takes_pictures
                else "arrays, as they are in their files"
            ),
            preprocessing_from=preprocessing_from,
            classes_from=classes_from,
            versions={**contract.versions, **_installed()},
            provider=explainer.provider,
            when=when,
            command=command,
            conservation=conservation or {},
            notes=notes,
        )


def _installed() -> dict[str, str]:
    """Versions of what runs the model."""
    names = [*installed(), "numpy"]
    versions = {name: importlib.metadata.version(name) for name in names}
    return versions | {"Python": platform.python_version()}
