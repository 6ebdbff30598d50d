"""Registries: a method, a sampler, a prior or a dataset is registered once, in its own file, by one record.

Everything that lists names (choices, help, tables, figures, published rows, error messages) reads the registry, so that what is
new is one new file. A package registers its own files by importing them; anyone else's file registers when it is imported.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, Protocol, TypeVar

from bpc.errors import unknown_name

__all__ = ["Named", "Registry"]


class Named(Protocol):
    """What a record has at least."""

    @property
    def name(self) -> str:
        """On the command line and in files."""
        ...


R = TypeVar("R", bound=Named)


class Registry(Generic[R]):
    """Records by name, in the order of their registration.

    Args:
        kind: what they are, for error messages: ``divergence``.
        part_of: a wider registry that the records enter too; a name is then taken in both.
    """

    def __init__(self, kind: str, part_of: Registry[Any] | None = None) -> None:
        self.kind = kind
        self._part_of = part_of
        self._records: dict[str, R] = {}

    def register(self, record: R) -> R:
        """Add a record.

        Raises:
            ValueError: the name is taken.
        """
        if record.name in self._records:
            raise ValueError(f"There is a {self.kind} {record.name!r} already; register each name once.")
        if self._part_of is not None:
            self._part_of.register(record)
        self._records[record.name] = record
        return record

    def names(self) -> tuple[str, ...]:
        """All names."""
        return tuple(self._records)

    def get(self, name: str, *, hint: str = "") -> R:
        """The record of that name.

        Raises:
            ConfigError: unknown; the message lists the names and suggests the closest.
        """
        if name not in self._records:
            raise unknown_name(self.kind, name, self._records, hint=hint)
        return self._records[name]

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[R]:
        return iter(self._records.values())

    def __len__(self) -> int:
        return len(self._records)
