"""All ways that a coreset comes about, as tables and figures know them: learned, chosen, or no coreset at all (the full data)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bpc.registry import Registry

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """What tables and figures show of a method.

    Attributes:
        name: in files and on the command line.
        label: as a reader sees it.
        colour, marker: in every figure, as matplotlib writes them; the colours of Okabe and Ito are told apart by
            colour-blind readers.
        place: methods stand in tables in the order of this number.
        learned: whether its points are learned, so that augmentation in learning makes another method of it.
        published: its name in the tables of each paper: ``{"kim2022": "BPC-fKL"}``.
    """

    name: str
    label: str
    colour: str
    marker: str
    place: int = 500
    learned: bool = False
    published: Mapping[str, str] = field(default_factory=dict)


METHODS: Registry[Method] = Registry("method")
METHODS.register(
    Method(
        name="full",
        label="Full data",
        colour="#000000",
        marker="*",
        place=1000,
        published={"kim2022": "Full data"},
    )
)
