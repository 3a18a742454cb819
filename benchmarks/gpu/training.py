"""Train the model that ships for so many seconds of the wall clock, in batches that suit the card.

Run: python benchmarks/gpu/training.py INDEX FOLDER [--seconds 240] [--batch N] [--begin WEIGHTS] [--recipe FILE]

The recipe's tasks, losses and data, and its schedule with the number of steps left open: constant, and over the last
quarter of the time straight down to 0. It goes on from WEIGHTS, a model's weights file or the state of a segment.
FOLDER/unrolled gets weights, history and recipe anew after every half a minute, as export_model writes them: a kill
loses no more, and `headsr models ship` takes them.
"""

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from measured import say
from torch import nn

from headsr.devices import choose_device, choose_precision
from headsr.files import read_json, sha256_of
from headsr.history import write_history
from headsr.losses.composite import weighted_sum
from headsr.recipes import Model, ModelRecipe, build, parts_of_model, tracked, versions
from headsr.training.chain import Sources, fingerprint_of, setting_of, with_last_line, write_recipe
from headsr.training.loop import Plan, finite, train, weights_of
from headsr.training.schedules import rate_of
from headsr.training.state import Learner, load_average, save_state
from headsr.training.task import Batches, Task
from headsr.weights import load_tensors, read_metadata, save_model

RECIPE = Path(__file__).parents[2] / "config" / "models" / "unrolled.yaml"
BATCHES, STEP_SECONDS = (2, 4, 8, 16, 32, 64), 0.15  # the largest batch whose step takes no longer
STRETCH_SECONDS, DECAY, MARGIN = 30.0, 0.25, 0.93  # of a decay's time, what its steps are counted for
FINISH_SECONDS = 15.0  # calibration, the last validation and writing
DRAWING = 4  # threads that draw the batches of the next steps


def main() -> None:
    begun = time.monotonic()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=240)
    parser.add_argument("--finish-seconds", type=float, default=FINISH_SECONDS)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--begin", type=Path)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark = True  # all blocks have one shape
    recipe, device = read_recipe(arguments.recipe), choose_device()
    sizes = (arguments.batch,) if arguments.batch else BATCHES
    recipe, seconds = suitable(recipe, arguments.index, sizes, device)
    training = Training.of(recipe, arguments.index, device, arguments.folder / "unrolled", arguments.begin)
    with training.drawn_ahead():
        training.go_on(begun + arguments.seconds - arguments.finish_seconds, arguments.seconds, 1 / seconds)


def read_recipe(path: Path = RECIPE) -> Model:
    """The recipe of one file, whatever other files of the configuration say."""
    return build(ModelRecipe, yaml.safe_load(path.read_text(encoding="utf-8")), str(path))


def suitable(recipe: Model, index: Path, sizes: tuple[int, ...], device: torch.device) -> tuple[Model, float]:
    """The recipe with the largest batch of ``sizes`` that fits and is quick, and how long a step of it takes."""
    chosen = None
    for size in sizes:
        tried = replace(recipe, budget=replace(recipe.budget, batch=size))
        try:
            seconds = seconds_of_step(task_of(tried, index, device), device)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        say(f"a step with a batch of {size}", round(seconds, 4), "s")
        if chosen is not None and seconds > STEP_SECONDS:
            break
        chosen = tried, seconds
    if chosen is None:
        raise SystemExit(f"not even a batch of {sizes[0]} fits into the card's memory")
    say("batch", chosen[0].budget.batch)
    return chosen


def task_of(recipe: Model, index: Path, device: torch.device) -> Task:
    return recipe.part.load()(setting_of(recipe, Sources(index, (), None, {}), device))


def seconds_of_step(task: Task, device: torch.device, steps: int = 3) -> float:
    """The mean over some steps after a first one, data and gradients included."""
    recipe, network = task.setting.recipe, task.networks()["network"].to(device)
    precision = choose_precision(recipe.precision, device)
    for step in range(steps + 1):
        if step == 1:
            begun = now(device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision is not None):
            terms = task.terms("network", {"network": network}, step + 1)
        weighted_sum(terms, weights_of("network", recipe)).backward()
    return (now(device) - begun) / steps


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.monotonic()


@dataclass(eq=False)
class Training:
    """A training as far as it has come: ``previous`` is the state after ``done`` steps."""

    recipe: Model
    task: Task
    networks: dict[str, nn.Module]
    record: dict[str, Any]
    folder: Path
    scratch: Path
    done: int = 0
    previous: Path | None = None

    @classmethod
    def of(cls, recipe: Model, index: Path, device: torch.device, folder: Path, begin: Path | None) -> "Training":
        task = task_of(recipe, index, device)
        torch.manual_seed(recipe.seed)
        networks = task.networks()
        record = {"training_keys": fingerprint_of(read_json(index)["stores"]), "device": name_of(device)}
        record["stage"] = versions("train_segment", parts_of_model(recipe))
        if begin is not None:
            networks["network"] = with_weights(begin, networks["network"])
            record["begun_from"] = sha256_of(begin)
            say("begun from", begin.name)
        networks = {name: network.to(device) for name, network in networks.items()}
        task.begin(networks)
        folder.mkdir(parents=True, exist_ok=True)
        return cls(recipe, task, networks, record, folder, Path(tempfile.mkdtemp()))

    def drawn_ahead(self) -> "Ahead":
        """Have the batches of the next steps drawn while the card computes this one's."""
        ahead = Ahead(self.task.setting.train)
        self.task.setting = replace(self.task.setting, train=ahead)
        return ahead

    def go_on(self, deadline: float, seconds: float, speed: float) -> None:
        """Stretch by stretch until the deadline, at first at a ``speed`` foreseen (steps/s); the last one decays."""
        first, decay = time.monotonic(), DECAY * seconds
        while True:
            begun = time.monotonic()
            steady = deadline - decay - begun
            decays = steady <= 0
            wanted = MARGIN * (deadline - begun) if decays else min(STRETCH_SECONDS, steady)
            steps = max(1, int(speed * wanted))
            state = self._stretch(steps, decays=decays)
            speed = steps / (time.monotonic() - begun)
            self._report(time.monotonic() - first)
            if decays:
                break
        learner = state.learners["network"]
        measures = finite({**self.task.finish(learner.averaged), **self.task.validate(learner.averaged)})
        self._keep(learner, with_last_line(state.history, state.step, measures))
        for name, value in measures.items():
            say(name, round(value, 4))
        shutil.rmtree(self.scratch)

    def _stretch(self, steps: int, *, decays: bool) -> Any:
        """Some steps on; the state, with weights and history beside it, is written after them."""
        last, kept = self.done + steps, {"recipe": tracked(self.recipe)}
        recipe = replace(self.recipe, budget=replace(self.recipe.budget, steps=steps))
        plan = Plan(
            label="unrolled",
            recipe=recipe,
            identity=kept,
            continues=kept,
            first=self.done,
            last=last,
            rate=rate_of(recipe, {"falls": int(decays), "of": 1}, last=last),
            scratch=self.scratch,
            previous=self.previous,
        )
        state = train(self.task, self.networks, plan)
        self.done, self.previous = last, self.scratch / "state.safetensors"
        save_state(self.previous, state, identity=kept)
        plan.rolling.unlink(missing_ok=True)
        self._keep(state.learners["network"], state.history)
        return state

    def _keep(self, learner: Learner, history: list[Mapping[str, float]]) -> None:
        record = {**self.record, "validation": history[-1]}
        trained = replace(self.recipe, budget=replace(self.recipe.budget, steps=self.done, segments=1))
        save_model(self.folder / "weights.safetensors", learner.averaged, trained, record=record)
        write_history(self.folder / "history.jsonl", history)
        write_recipe(self.folder / "recipe.yaml", trained)

    def _report(self, seconds: float) -> None:
        say("steps", self.done)
        say("steps per second, validation included", round(self.done / seconds, 2))
        if torch.cuda.is_available():
            say("peak memory", round(torch.cuda.max_memory_allocated() / 2**30, 2), "GiB")


def with_weights(path: Path, network: nn.Module) -> nn.Module:
    """The network with the averaged weights of a segment's state, or with those of a finished model."""
    if "identity" in read_metadata(path):
        return load_average(path, "network", network)
    network.load_state_dict(load_tensors(path)[0])
    return network


def name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


class Ahead:
    """Batches drawn before they are asked for, in threads: each is a pure function of its step, so none is another."""

    def __init__(self, batches: Batches) -> None:
        self.batches, self.pool = batches, ThreadPoolExecutor(DRAWING)
        self.coming: dict[int, Future] = {}

    def __enter__(self) -> "Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.shutdown(cancel_futures=True)

    def batch(self, step: int, size: int | None = None) -> Any:
        for later in self._wanted(step):
            self.coming[later] = self.pool.submit(self.batches.batch, later, size)
        return self.coming.pop(step).result()

    def _wanted(self, step: int) -> Iterator[int]:
        """This step and the next ones, as far as they are not being drawn; earlier ones are let go."""
        self.coming = {later: drawn for later, drawn in self.coming.items() if later >= step}
        return itertools.filterfalse(self.coming.__contains__, range(step, step + 2 * DRAWING))


if __name__ == "__main__":
    main()
