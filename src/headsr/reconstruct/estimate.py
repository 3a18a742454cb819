"""What a method makes of the scans of one head, before it is projected, written or scored: one call for them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headsr.acquisition.measurement import Study
from headsr.recipes import Method, model_references

if TYPE_CHECKING:
    from headsr.fields.field import Field
    from headsr.weights import TrainedModel


@dataclass(frozen=True, eq=False)
class Estimate:
    """A volume (X, Y, Z) on the head's grid in normalised intensities; ``record`` is plain JSON for its sidecar.

    ``uncertainty`` is half of the interval that holds 90 % of the errors, where a method foretells it.
    """

    volume: NDArray[np.float32]
    record: dict[str, Any] = field(default_factory=dict)
    uncertainty: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class FieldEstimate(Estimate):
    """The same from a method that makes a field: ``volume`` is the field's before it was made to agree with the scans.

    ``field`` is the one that agrees with them, ``history`` the lines of its fit, one object of numbers each.
    """

    field: Field
    history: list[dict[str, float]]


def estimate_of(
    study: Study, method: Method, models: Mapping[str, TrainedModel], *, memory: int | None = None, label: str = ""
) -> Estimate:
    """What a method makes of a study; a FieldEstimate where it makes a field.

    ``models`` are the trained models that its recipe names, on the device of the study's scans. ``memory`` is what it
    may take, in bytes, and ``label`` what the lines on its progress begin with (none without it), where it takes its
    work in pieces (Method.tiled). Raises ValueError for a model that is missing or of another kind.
    """
    for reference in model_references(method):
        if reference.name not in models:
            raise ValueError(f"{method.kind} needs the model {reference.name!r}, and it was not given")
        if models[reference.name].kind not in reference.kinds:
            raise ValueError(
                f"{reference.name!r} is a model of kind {models[reference.name].kind}; {method.kind} needs one of kind "
                f"{' or '.join(reference.kinds)}"
            )
    return method.part.load()(study, method, models, **({"memory": memory, "label": label} if method.tiled else {}))
