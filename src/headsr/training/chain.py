"""Every training is a chain of segments, whatever it trains; the last state is exported as the model's weights."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from headsr.devices import choose_device
from headsr.files import read_json, sha256_of, whole
from headsr.history import read_history, write_history
from headsr.models.trained import write_trained_card
from headsr.networks.blocks import checkpoint_blocks
from headsr.networks.build import build_network
from headsr.recipes import Blind, Model, plain, tracked
from headsr.training.loop import Plan, finite, forget_rolling, train
from headsr.training.schedules import rate_of
from headsr.training.state import load_average, refuse_other, save_state
from headsr.training.task import Setting
from headsr.training.team import Team, run_as_team, team_size
from headsr.weights import companion_of, load_model, read_metadata, save_model


@dataclass(frozen=True)
class Sources:
    """What a training is made from, beside its recipe.

    ``index`` lists its scans; ``companions`` are the weights of the models that it names, each in a folder of its name;
    ``blind`` the degradation that its data name; ``stage`` the versions of the code.
    """

    index: Path
    companions: Sequence[Path]
    blind: Blind | None
    stage: Mapping[str, int]


def train_segment(
    recipe: Model,
    sources: Sources,
    *,
    segment: int,
    course: Mapping[str, Any],
    previous: str | os.PathLike[str] | None,
    state: str | os.PathLike[str],
    history: str | os.PathLike[str],
    scratch: str | os.PathLike[str],
    processes: int = 1,
) -> None:
    """Train segment number ``segment`` (from 0): ``budget.steps`` steps on from the ``previous`` state, into ``state``.

    k segments of n steps give the bytes of one of k n steps, since nothing here depends on the number of segments but
    what ``course`` says of this one (Model.course). ``history`` gets the JSON lines of this segment, the last of them
    with what is measured of a finished network. It runs in up to so many ``processes`` as share the batches of a step
    evenly (training.team).
    """
    places = {"state": Path(state), "history": Path(history), "scratch": Path(scratch)}
    before = None if previous is None else Path(previous)
    work = partial(_train, recipe, sources, segment=segment, course=dict(course), previous=before, **places)
    run_as_team(work, _team_size(recipe, sources, processes))


def _team_size(recipe: Model, sources: Sources, processes: int) -> int:
    """How many processes train, of those that were asked for; where that is fewer, why is said."""
    batches = recipe.optimizer.accumulation
    size, why = team_size(batches, processes), f"optimizer.accumulation is {batches}"
    if sources.blind is not None and sources.blind.pool:
        # What a pool holds follows from all batches before: each process would have to make those of the others.
        size, why = 1, "its degradation has a pool"
    if size < processes:
        print(f"in {size} of {processes} processes, since {why}", flush=True)
    return size


def _train(
    recipe: Model,
    sources: Sources,
    team: Team,
    *,
    segment: int,
    course: Mapping[str, Any],
    previous: Path | None,
    state: Path,
    history: Path,
    scratch: Path,
) -> None:
    """Train a segment as one process of a team; the first writes what comes of it."""
    task = recipe.part.load()(setting_of(recipe, sources, choose_device()))
    torch.manual_seed(recipe.seed)
    networks = {name: network.to(task.setting.device) for name, network in task.networks().items()}
    if previous is None:
        task.begin(networks)
    if recipe.checkpointing:
        checkpoint_blocks(networks["network"])
    plan = _plan(recipe, sources, segment, course, previous=previous, state=state, scratch=scratch)
    result = train(task, networks, plan, team)
    if not team.leads:
        return
    model = result.learners[task.turns[0]].averaged
    measures = finite({**task.finish(model), **task.validate(model)})
    write_history(history, plan.lines(with_last_line(result.history, result.step, measures)))
    save_state(state, result, identity=plan.identity)
    forget_rolling(plan)


def export_model(
    recipe: Model,
    state: str | os.PathLike[str],
    *,
    companions: Sequence[str | os.PathLike[str]],
    histories: Sequence[str | os.PathLike[str]],
    weights: str | os.PathLike[str],
    history: str | os.PathLike[str],
    recipe_copy: str | os.PathLike[str],
    datasets: Mapping[str, Mapping[str, str]],
    citation: str,
) -> None:
    """Write the averaged network of the last segment's ``state`` with the companions that it is used with, in one file,
    and its card beside it.

    ``histories`` of all segments, in order, become one ``history``. ``datasets`` are those that it learned from, and
    ``citation`` is for its card (models.card.Card). StateError if the state is not of this recipe and these companions.
    """
    found = read_metadata(state)["identity"]
    refuse_other(state, found, {**found, "recipe": _lasting(recipe), "companions": _hashes(companions)})
    paths = {_name(path): path for path in companions}
    kept = {role: paths[getattr(recipe, role)] for role in recipe.kept}
    network = load_average(state, "network", build_network(recipe.network))
    roles = {role: load_model(path).module for role, path in kept.items()}
    module = recipe.assembly.load()(network, **roles) if roles else network
    lines = [line for path in histories for line in read_history(path)]
    record = {"training_keys": found["training_keys"], "stage": found["stage"], "validation": lines[-1]}
    write_recipe(recipe_copy, recipe)
    write_history(history, lines)
    described = {role: companion_of(path) for role, path in kept.items()}
    save_model(weights, module, recipe, companions=described, record=record)
    write_trained_card(weights, lines, trained_on=recipe.data.words, datasets=datasets, citation=citation)


def setting_of(recipe: Model, sources: Sources, device: torch.device) -> Setting:
    """What the task of a recipe works with."""
    data = recipe.data.part.load()
    train, held_out = (
        data(recipe, sources.index, split=split, blind=sources.blind, device=device) for split in ("train", "val")
    )
    companions = {_name(path): load_model(path, device=device) for path in sources.companions}
    return Setting(recipe, train, held_out, companions, device)


def with_last_line(history: list[dict[str, float]], step: int, measures: dict[str, float]) -> list[dict[str, float]]:
    """The history whose last line holds ``measures``, at ``step``."""
    if history and history[-1]["step"] == step:
        return [*history[:-1], {**history[-1], **measures}]
    return [*history, {"step": step, **measures}]


def write_recipe(path: str | os.PathLike[str], recipe: Model) -> None:
    """Write the resolved recipe as YAML."""
    with whole(path) as partial:
        partial.write_text(yaml.safe_dump(plain(recipe), sort_keys=True), encoding="utf-8")


def fingerprint_of(content: Any) -> str:
    """Hex SHA-256 of plain data or a recipe, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(plain(content), sort_keys=True).encode()).hexdigest()


def _plan(
    recipe: Model,
    sources: Sources,
    segment: int,
    course: Mapping[str, Any],
    *,
    previous: Path | None,
    state: Path,
    scratch: Path,
) -> Plan:
    last, lasting = (segment + 1) * recipe.budget.steps, _identity(recipe, sources)
    return Plan(
        label=f"{state.parent.name}, segment {segment}",
        recipe=recipe,
        identity={**lasting, **course},
        continues={**lasting, **_before(course)},
        first=segment * recipe.budget.steps,
        last=last,
        rate=rate_of(recipe, course, last=last),
        scratch=scratch,
        previous=previous,
    )


def _before(course: Mapping[str, Any]) -> dict[str, Any]:
    """The course of the segment before one (Model.course)."""
    falls = course.get("falls", 0)
    return {"falls": 0} if falls == 1 else {**course, "falls": falls - 1} if falls else dict(course)


def _identity(recipe: Model, sources: Sources) -> dict[str, Any]:
    """What every segment of one training has in common."""
    return {
        "recipe": _lasting(recipe),
        "blind": tracked(sources.blind),
        "training_keys": fingerprint_of(read_json(sources.index)["stores"]),
        "stage": dict(sources.stage),
        "companions": _hashes(sources.companions),
    }


def _lasting(recipe: Model) -> dict[str, Any]:
    """A recipe without the length of its training."""
    return tracked(replace(recipe, budget=replace(recipe.budget, steps=1, segments=1)))


def _hashes(companions: Sequence[str | os.PathLike[str]]) -> dict[str, str]:
    return {_name(path): sha256_of(path) for path in companions}


def _name(weights: str | os.PathLike[str]) -> str:
    return Path(weights).parent.name
