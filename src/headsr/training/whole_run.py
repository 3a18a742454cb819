"""A training that is one job from its first step to its weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml
from torch import nn

from headsr.files import whole
from headsr.history import write_history
from headsr.recipes import Model, plain
from headsr.training.loop import Plan, Task, cosine_rate, finite, forget_rolling, train
from headsr.training.pairs import training_keys
from headsr.weights import save_model


class Outputs(NamedTuple):
    """Where a trained model goes: weights, history (JSON lines), recipe (YAML); and the folder of its rolling state."""

    weights: Path
    history: Path
    recipe_copy: Path
    scratch: Path


def run_whole(
    task: Task,
    module: nn.Module,
    recipe: Model,
    *,
    index: str | os.PathLike[str],
    stage: int,
    outputs: Outputs,
    finish: Callable[[nn.Module], None] = lambda module: None,
) -> None:
    """Train all steps of the recipe, let ``finish`` measure what the averaged network needs, and write the outputs."""
    name, total = outputs.weights.parent.name, recipe.budget.steps * recipe.budget.segments
    record = {"training_keys": training_keys(index, recipe.suffixes), "stage": stage}
    plan = Plan(
        label=name,
        recipe=recipe,
        identity={**record, "recipe": plain(recipe)},
        first=0,
        last=total,
        rate=cosine_rate(recipe.learning_rate, total=total),
        scratch=outputs.scratch,
    )
    state = train(task, module, plan)
    finish(state.averaged)
    history = with_last_line(state.history, state.step, finite(task.validate(state.averaged)))
    write_recipe(outputs.recipe_copy, recipe)
    write_history(outputs.history, history)
    save_model(outputs.weights, state.averaged, recipe, record={**record, "validation": history[-1]})
    forget_rolling(plan)


def with_last_line(history: list[dict[str, float]], step: int, measures: dict[str, float]) -> list[dict[str, float]]:
    """The history whose last line holds ``measures``, at ``step``."""
    if history and history[-1]["step"] == step:
        return [*history[:-1], {**history[-1], **measures}]
    return [*history, {"step": step, **measures}]


def write_recipe(path: str | os.PathLike[str], recipe: Model) -> None:
    """Write the resolved recipe as YAML."""
    with whole(path) as partial:
        partial.write_text(yaml.safe_dump(plain(recipe), sort_keys=True), encoding="utf-8")
