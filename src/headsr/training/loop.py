"""The one training loop: turns, mixed precision, moving averages, history, and going on after a kill.

Own code over torch.autocast, not lightning's Fabric: importing lightning costs 6 s in each training job, and
what is needed of it here (a device, a cast) is a few lines. A run on several GPUs would be the reason to take it up.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headsr.devices import choose_precision
from headsr.files import sha256_of
from headsr.history import write_history
from headsr.losses.composite import weighted_sum
from headsr.progress import Progress
from headsr.recipes import Model
from headsr.seeds import seed_of
from headsr.training.ema import update_average
from headsr.training.state import TrainingState, load_state, new_state, save_state
from headsr.training.task import Task
from headsr.weights import StateError

ROLLING_SECONDS = 60.0


class TrainingError(RuntimeError):
    """A training cannot go on. The message says at which step and what to try."""


@dataclass(frozen=True)
class Plan:
    """One stretch of training: from optimiser step ``first`` to ``last``.

    ``identity`` is what the resulting state is the state of (recipe, training keys, stage version ...), and
    ``continues`` that of the ``previous`` state, the one at ``first``: a state made under another one is never
    continued. ``rate`` gives the learning rate of a step; ``scratch`` is the folder of the rolling state.
    """

    label: str
    recipe: Model
    identity: Mapping[str, Any]
    continues: Mapping[str, Any]
    first: int
    last: int
    rate: Callable[[int], float]
    scratch: Path
    previous: Path | None = None

    @property
    def rolling(self) -> Path:
        """Where the state is kept every ROLLING_SECONDS, for going on after a kill."""
        return self.scratch / "rolling.safetensors"

    @property
    def running(self) -> Path:
        """Where the history of a running training can be read."""
        return self.scratch / "rolling.jsonl"

    def lines(self, history: list[dict[str, float]]) -> list[dict[str, float]]:
        """What of a history belongs to this stretch."""
        return [line for line in history if line["step"] > self.first or self.first == 0]


def train(task: Task, networks: Mapping[str, nn.Module], plan: Plan) -> TrainingState:
    """Train networks (on their device) as planned, going on from the rolling state of the same plan if there is one.

    Equal plans give equal bytes on one machine with one number of threads, killed in between or not. Raises
    TrainingError when the loss stops being finite. The caller writes its outputs and then calls forget_rolling.
    """
    device = next(networks[task.turns[0]].parameters()).device
    state = new_state(networks, plan.recipe.optimizer)
    kept = {**plan.identity, "stretch": [plan.first, plan.last], "previous": _content(plan.previous)}
    _begin(state, plan, kept)
    precision = choose_precision(plan.recipe.precision, device)
    print(f"{plan.label}: {plan.last - state.step} steps on {device}, {precision or torch.float32} ", flush=True)
    if state.step == 0 and not state.history:
        state.history.append({"step": 0, **finite(task.validate(_model_of(state, task)))})
    write_history(plan.running, plan.lines(state.history))
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
    """Remove the rolling state and history, once the outputs that they were kept for are written."""
    plan.rolling.unlink(missing_ok=True)
    plan.running.unlink(missing_ok=True)


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
        load_state(plan.previous, state, identity=plan.continues)
    if state.step != plan.first:
        raise StateError(f"{plan.previous}: is the state after step {state.step}, not {plan.first}. Delete it")


def _descend(state: TrainingState, task: Task, plan: Plan, precision: torch.dtype | None) -> Tensor:
    """One step of every network, each in its turn; returns the weighted loss of the first."""
    losses = [_take_turn(turn, state, task, plan, precision) for turn in task.turns]
    state.step, state.count = state.step + 1, state.count + 1
    return losses[0]


def _take_turn(turn: str, state: TrainingState, task: Task, plan: Plan, precision: torch.dtype | None) -> Tensor:
    """One optimiser step of one network, on as many batches as the recipe accumulates."""
    step, learner, batches = state.step + 1, state.learners[turn], plan.recipe.optimizer.accumulation
    _give_turn(turn, state)
    total = 0.0
    for batch in range((step - 1) * batches + 1, step * batches + 1):
        total = total + _accumulate(turn, state, task, plan, precision, batch)
    nn.utils.clip_grad_norm_(learner.module.parameters(), plan.recipe.optimizer.clip)
    for group in learner.optimizer.param_groups:
        group["lr"] = plan.rate(step)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    update_average(learner.averaged, learner.module, decay=plan.recipe.ema_decay, step=step)
    return total


def _give_turn(turn: str, state: TrainingState) -> None:
    """Gradients for the parameters of one network, and for those of no other."""
    for name, learner in state.learners.items():
        learner.module.train()
        for group in learner.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(name == turn)


def _accumulate(
    turn: str, state: TrainingState, task: Task, plan: Plan, precision: torch.dtype | None, batch: int
) -> Tensor:
    """Add the gradients of one batch to those of its step, and its losses to the sums."""
    modules = {name: learner.module for name, learner in state.learners.items()}
    device = next(modules[turn].parameters()).device
    # What a network draws by itself (dropout) is the batch's too, or a training that goes on would draw otherwise.
    torch.manual_seed(seed_of(plan.recipe.seed, turn, batch))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is not None):
        terms = task.terms(turn, modules, batch)
    loss = weighted_sum(terms, weights_of(turn, plan.recipe)) / plan.recipe.optimizer.accumulation
    loss.backward()
    for name, term in {**terms, "loss": loss * plan.recipe.optimizer.accumulation}.items():
        name = name if turn == "network" else f"{turn}_{name}"
        mean = term.detach().double() / plan.recipe.optimizer.accumulation
        state.sums[name] = state.sums.get(name, 0.0) + mean
    return loss.detach()


def weights_of(turn: str, recipe: Model) -> dict[str, float]:
    """The weights of a turn's losses. They say how the model weighs them; its adversary has but one thing to learn."""
    return {name: term.weight if turn == "network" else 1.0 for name, term in recipe.losses.items()}


def _log(state: TrainingState, task: Task, plan: Plan) -> None:
    """Append the mean losses since the last line, and the validation measures where they are due."""
    _refuse_divergence(state)
    line = {"step": state.step, "learning_rate": plan.rate(state.step)}
    line |= {f"train_{name}": float(total) / state.count for name, total in state.sums.items()}
    if is_validated(state.step):
        line |= finite(task.validate(_model_of(state, task)))
    state.history.append(line)
    state.sums, state.count = {}, 0
    with plan.running.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line, allow_nan=False) + "\n")


def _model_of(state: TrainingState, task: Task) -> nn.Module:
    return state.learners[task.turns[0]].averaged


def _refuse_divergence(state: TrainingState) -> None:
    for name, total in state.sums.items():
        if not math.isfinite(total):
            raise TrainingError(
                f"the loss {name!r} is not a number any more, after step {state.step - state.count} and by step "
                f"{state.step}. Lower learning_rate, or set precision: fp32 in the model's recipe"
            )


def _content(path: Path | None) -> str:
    return "" if path is None else sha256_of(path)
