"""The one training loop: steps, mixed precision, the moving average, history, and going on after a kill.

Own code over torch.autocast, not lightning's Fabric: importing lightning costs 6 s in each training job, and
what is needed of it here (a device, a cast) is a few lines. A run on several GPUs would be the reason to take it up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from headsr.devices import choose_precision
from headsr.files import sha256_of
from headsr.losses.composite import weighted_sum
from headsr.progress import Progress
from headsr.recipes import Model
from headsr.training.ema import update_average
from headsr.training.state import TrainingState, load_state, new_state, save_state
from headsr.weights import StateError

ROLLING_SECONDS = 60.0
_WARM_UP_STEPS = 50


class TrainingError(RuntimeError):
    """A training cannot go on. The message says at which step and what to try."""


class Task(Protocol):
    """What differs between the kinds of model: the losses of a step and the measures on the validation slices."""

    def terms(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Unweighted losses of optimiser step ``step``: a pure function of the weights and the step."""

    def validate(self, module: nn.Module) -> dict[str, float]:
        """Measures of a network on fixed validation slices."""


@dataclass(frozen=True)
class Plan:
    """One stretch of training: from optimiser step ``first`` to ``last``.

    ``identity`` is what the resulting state is the state of (recipe, training keys, stage version ...): a state made
    under another one is never continued. ``rate`` gives the learning rate of a step. ``previous`` is the state at
    ``first``; ``scratch`` the folder of the rolling state.
    """

    label: str
    recipe: Model
    identity: Mapping[str, Any]
    first: int
    last: int
    rate: Callable[[int], float]
    scratch: Path
    previous: Path | None = None

    @property
    def rolling(self) -> Path:
        """Where the state is kept every ROLLING_SECONDS, for going on after a kill."""
        return self.scratch / "rolling.safetensors"


def train(task: Task, module: nn.Module, plan: Plan) -> TrainingState:
    """Train ``module`` (on its device) as planned, going on from the rolling state of the same plan if there is one.

    Equal plans give equal bytes on one machine with one number of threads, killed in between or not. Raises
    TrainingError when the loss stops being finite. The caller writes its outputs and then calls forget_rolling.
    """
    device = next(module.parameters()).device
    state = new_state(module)
    kept = {**plan.identity, "stretch": [plan.first, plan.last], "previous": _content(plan.previous)}
    _begin(state, plan, kept)
    precision = choose_precision(plan.recipe.precision, device)
    print(f"{plan.label}: {plan.last - state.step} steps on {device}, {precision or torch.float32} ", flush=True)
    if state.step == 0 and not state.history:
        state.history.append({"step": 0, **finite(task.validate(state.averaged))})
    progress, saved = Progress(plan.label, first=state.step, last=plan.last), time.monotonic()
    while state.step < plan.last:
        loss = _descend(state, task, plan, precision)
        if is_logged(state.step):
            _log(state, task, plan)
        if progress.due():
            progress.report(state.step, float(loss))
        if time.monotonic() - saved >= ROLLING_SECONDS:
            _refuse_divergence(state)
            save_state(plan.rolling, state, identity=kept)
            saved = time.monotonic()
    _refuse_divergence(state)
    return state


def forget_rolling(plan: Plan) -> None:
    """Remove the rolling state, once the outputs that it was kept for are written."""
    plan.rolling.unlink(missing_ok=True)


def cosine_rate(base: float, *, total: int) -> Callable[[int], float]:
    """Learning rate of a step: linear warm-up over a twentieth of ``total`` steps, then half a cosine down to 1 %."""
    warm_up = max(1, min(1000, total // 20))

    def rate(step: int) -> float:
        done = min(1.0, max(0.0, (step - warm_up) / max(1, total - warm_up)))
        return base * min(1.0, step / warm_up) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))

    return rate


def constant_rate(base: float) -> Callable[[int], float]:
    """Learning rate of a step: linear warm-up, then constant, whatever the total, so that segments can be added.

    The moving average does what a decay would do.
    """
    return lambda step: base * min(1.0, step / _WARM_UP_STEPS)


def is_logged(step: int) -> bool:
    """Whether a step writes a line of history: every 10th up to 10,000, every 100th up to 100,000 ..."""
    return step % 10 ** max(1, len(str(step)) - 3) == 0


def is_validated(step: int) -> bool:
    """Whether a step is validated too: every 10th of the logged ones."""
    return step % 10 ** max(2, len(str(step)) - 2) == 0


def finite(measures: Mapping[str, float]) -> dict[str, float]:
    """The measures that JSON can hold."""
    return {name: value for name, value in measures.items() if math.isfinite(value)}


def _begin(state: TrainingState, plan: Plan, kept: Mapping[str, Any]) -> None:
    """Load the state at the first step, or a later one of the same stretch that a killed job left."""
    if plan.rolling.exists():
        try:
            load_state(plan.rolling, state, identity=kept)
            print(f"{plan.label}: goes on from step {state.step}, where an earlier job was stopped", flush=True)
            return
        except StateError as error:
            print(f"{plan.label}: begins anew, not from the rolling state ({error})", flush=True)
    if plan.previous is not None:
        load_state(plan.previous, state, identity=plan.identity)
    if state.step != plan.first:
        raise StateError(f"{plan.previous}: is the state after step {state.step}, not {plan.first}. Delete it")


def _descend(state: TrainingState, task: Task, plan: Plan, precision: torch.dtype | None) -> Tensor:
    """One optimiser step; returns its weighted loss."""
    step, device = state.step + 1, next(state.module.parameters()).device
    state.module.train()
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is not None):
        terms = task.terms(state.module, step)
    loss = weighted_sum(terms, plan.recipe.losses)
    loss.backward()
    nn.utils.clip_grad_norm_(state.module.parameters(), 1.0)
    for group in state.optimizer.param_groups:
        group["lr"] = plan.rate(step)
    state.optimizer.step()
    state.optimizer.zero_grad(set_to_none=True)
    update_average(state.averaged, state.module, decay=plan.recipe.ema_decay, step=step)
    state.step, state.count = step, state.count + 1
    for name, term in {**terms, "loss": loss}.items():
        state.sums[name] = state.sums.get(name, 0.0) + term.detach().double()
    return loss.detach()


def _log(state: TrainingState, task: Task, plan: Plan) -> None:
    """Append the mean losses since the last line, and the validation measures where they are due."""
    _refuse_divergence(state)
    line = {"step": state.step, "learning_rate": plan.rate(state.step)}
    line |= {f"train_{name}": float(total) / state.count for name, total in state.sums.items()}
    if is_validated(state.step):
        line |= finite(task.validate(state.averaged))
    state.history.append(line)
    state.sums, state.count = {}, 0


def _refuse_divergence(state: TrainingState) -> None:
    for name, total in state.sums.items():
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss {name!r} is not a number any more, after step {state.step - state.count} and by step "
                f"{state.step}. Lower learning_rate, or set precision: fp32 in the model's recipe"
            )


def _content(path: Path | None) -> str:
    return "" if path is None else sha256_of(path)
