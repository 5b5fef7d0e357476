"""The active recipe: one immutable object behind one atomic reference (DESIGN 2, hot swap)."""

from __future__ import annotations

from dataclasses import dataclass

from efficientad_stream.core.geometry import Geometry
from efficientad_stream.core.types import Policy, RecipeId
from efficientad_stream.runtime.protocols import Backend


@dataclass(frozen=True)
class Active:
    """Everything a verdict depends on, swapped as one.

    ``geometry`` says where a map lies in its frame; None: all over it.
    """

    recipe: RecipeId
    policy: Policy
    backend: Backend
    geometry: Geometry | None = None


class ActiveRef:
    """The reference. Assigning an attribute is atomic in CPython; readers take it once a batch."""

    __slots__ = ("_active",)

    def __init__(self, active: Active) -> None:
        self._active = active

    def get(self) -> Active:
        """What is active now."""
        return self._active

    def swap(self, active: Active) -> Active:
        """Make ``active`` the active one; returns the old one, which its caller closes."""
        old, self._active = self._active, active
        return old
