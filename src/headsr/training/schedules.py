"""The learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from headsr.recipes import Model


def rate_of(recipe: Model, course: Mapping[str, Any], *, last: int) -> Callable[[int], float]:
    """The rate of steps from 1 on, as the recipe's schedule says, in a segment that ends at step ``last``.

    ``course`` is that of the segment (Model.course).
    """
    base, schedule, steps = recipe.optimizer.learning_rate, recipe.schedule, recipe.budget.steps

    def rate(step: int) -> float:
        risen = min(1.0, step / schedule.warm_up) if schedule.warm_up else 1.0
        if schedule.shape == "cosine":
            return base * risen * _cosine(step, schedule.warm_up, course["total"])
        if schedule.shape == "decay" and course["falls"]:
            after = (course["of"] - course["falls"]) * steps
            return base * risen * (after + last + 1 - step) / (course["of"] * steps)
        return base * risen

    return rate


def _cosine(step: int, warm_up: int, total: int) -> float:
    """From 1 after the warm-up to 1 % at the end, by half a cosine."""
    done = min(1.0, max(0.0, (step - warm_up) / max(1, total - warm_up)))
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
