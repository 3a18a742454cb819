"""The one training loop: turns, mixed precision, moving averages, history, and going on after a kill.

Own code over torch.autocast, not lightning's Fabric: importing lightning costs 6 s in each training job, and
what is needed of it here (a device, a cast, a sum over processes) is a few lines.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from headsr.devices import choose_precision
from headsr.files import sha256_of
from headsr.history import write_history
from headsr.losses.composite import gradient_shares, weighted_sum
from headsr.networks.spectral_norm import iterate_spectral_norms
from headsr.progress import Progress
from headsr.recipes import Model
from headsr.seeds import seed_of
from headsr.training.ema import update_average
from headsr.training.state import TrainingState, load_state, new_state, save_state
from headsr.training.task import Task
from headsr.training.team import ALONE, Team
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


class _Run(NamedTuple):
    """What all steps of a stretch have in common."""

    task: Task
    plan: Plan
    precision: torch.dtype | None
    team: Team


def train(task: Task, networks: Mapping[str, nn.Module], plan: Plan, team: Team = ALONE) -> TrainingState:
    """Train networks (on their device) as planned, going on from the rolling state of the same plan if there is one.

    Equal plans give equal bytes on one machine with one number of threads and processes, killed in between or not.
    Raises TrainingError when the loss stops being finite. The caller writes its outputs and then calls forget_rolling;
    in a ``team`` it is the process that leads, and only its state has the history.
    """
    device = next(networks[task.turns[0]].parameters()).device
    state = new_state(networks, plan.recipe.optimizer)
    kept = {**plan.identity, "stretch": [plan.first, plan.last], "previous": _content(plan.previous)}
    _begin(state, plan, kept, team)
    for network in networks.values():
        team.agree(network)
    run = _Run(task, plan, choose_precision(plan.recipe.precision, device), team)
    team.say(f"{plan.label}: {plan.last - state.step} steps on {device}{team}, {run.precision or torch.float32}")
    if team.leads:
        _begin_history(state, run)
    progress, saved = Progress(plan.label, first=state.step, last=plan.last), time.monotonic()
    while state.step < plan.last:
        loss, shares = _descend(state, run)
        if is_logged(state.step):
            _log(state, run, shares)
        if not team.leads:
            continue
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


def _begin(state: TrainingState, plan: Plan, kept: Mapping[str, Any], team: Team) -> None:
    """Load the state at the first step, or a later one of the same stretch that a killed job left."""
    if plan.rolling.exists():
        try:
            load_state(plan.rolling, state, identity=kept)
            team.say(f"{plan.label}: goes on from step {state.step}, where an earlier job was stopped")
            return
        except StateError as error:
            team.say(f"{plan.label}: begins anew, not from the rolling state ({error})")
    if plan.previous is not None:
        load_state(plan.previous, state, identity=plan.continues)
    if state.step != plan.first:
        raise StateError(f"{plan.previous}: is the state after step {state.step}, not {plan.first}. Delete it")


def _begin_history(state: TrainingState, run: _Run) -> None:
    """Validate what nothing was learned by yet, and write down what was measured so far."""
    if state.step == 0 and not state.history:
        state.history.append({"step": 0, **finite(run.task.validate(_model_of(state, run.task)))})
    write_history(run.plan.running, run.plan.lines(state.history))


class _Taken(NamedTuple):
    """What a turn measured: its weighted loss, and each term's share of its gradient where that was asked for."""

    loss: Tensor
    shares: dict[str, float]


def _descend(state: TrainingState, run: _Run) -> _Taken:
    """One step of every network, each in its turn; returns what the first one measured."""
    taken = [_take_turn(turn, state, run) for turn in run.task.turns]
    state.step, state.count = state.step + 1, state.count + 1
    return taken[0]


def _take_turn(turn: str, state: TrainingState, run: _Run) -> _Taken:
    """One optimiser step of one network, on as many batches as the recipe accumulates."""
    recipe, step, learner = run.plan.recipe, state.step + 1, state.learners[turn]
    _give_turn(turn, state)
    batches = range((step - 1) * recipe.optimizer.accumulation + 1, step * recipe.optimizer.accumulation + 1)
    asked = batches[0] if turn == run.task.turns[0] and is_validated(step) else None
    own, shares = [], {}
    for batch in run.team.own(batches):
        terms = _terms(turn, state, run, batch)
        if batch == asked:
            shares = gradient_shares(terms, weights_of(turn, recipe), learner.module)
        own.append(_accumulate(turn, terms, recipe))
    run.team.sum_gradients(learner.module)
    losses = run.team.losses_of_all(own)
    _add_to_sums(state, turn, losses)
    nn.utils.clip_grad_norm_(learner.module.parameters(), recipe.optimizer.clip)
    for group in learner.optimizer.param_groups:
        group["lr"] = run.plan.rate(step)
    learner.optimizer.step()
    learner.optimizer.zero_grad(set_to_none=True)
    iterate_spectral_norms(learner.module)
    update_average(learner.averaged, learner.module, decay=recipe.ema_decay, step=step)
    return _Taken(sum(one["loss"] for one in losses), shares)


def _give_turn(turn: str, state: TrainingState) -> None:
    """Gradients for the parameters of one network, and for those of no other."""
    for name, learner in state.learners.items():
        learner.module.train()
        for group in learner.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.requires_grad_(name == turn)


def _terms(turn: str, state: TrainingState, run: _Run, batch: int) -> dict[str, Tensor]:
    """The unweighted losses of one batch."""
    modules = {name: learner.module for name, learner in state.learners.items()}
    device = next(modules[turn].parameters()).device
    # What a network draws by itself (dropout) is the batch's too, or a training that goes on would draw otherwise.
    torch.manual_seed(seed_of(run.plan.recipe.seed, turn, batch))
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=run.precision is not None):
        return run.task.terms(turn, modules, batch)


def _accumulate(turn: str, terms: Mapping[str, Tensor], recipe: Model) -> dict[str, Tensor]:
    """Add the gradients of one batch to those of its step; returns its part of the step's mean losses."""
    batches = recipe.optimizer.accumulation
    loss = weighted_sum(terms, weights_of(turn, recipe)) / batches
    loss.backward()
    return {name: term.detach().double() / batches for name, term in {**terms, "loss": loss * batches}.items()}


def _add_to_sums(state: TrainingState, turn: str, losses: Sequence[Mapping[str, Tensor]]) -> None:
    for one in losses:
        for term, mean in one.items():
            name = term if turn == "network" else f"{turn}_{term}"
            state.sums[name] = state.sums.get(name, 0.0) + mean


def weights_of(turn: str, recipe: Model) -> dict[str, float]:
    """The weights of a turn's losses. They say how the model weighs them; its adversary has but one thing to learn."""
    return {name: term.weight if turn == "network" else 1.0 for name, term in recipe.losses.items()}


def _log(state: TrainingState, run: _Run, shares: Mapping[str, float]) -> None:
    """Append the mean losses since the last line; where they are due, shares of the gradient and the validation."""
    _refuse_divergence(state)
    line = {"step": state.step, "learning_rate": run.plan.rate(state.step)}
    line |= {f"train_{name}": float(total) / state.count for name, total in state.sums.items()}
    line |= {f"share_{name}": share for name, share in shares.items()}
    state.sums, state.count = {}, 0
    if not run.team.leads:
        return
    if is_validated(state.step):
        line |= finite(run.task.validate(_model_of(state, run.task)))
    state.history.append(line)
    with run.plan.running.open("a", encoding="utf-8") as stream:
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
