"""Trains one recipe again and again in child processes, each of which kills itself at its point (test_training_kills).

``python killed_trainings.py FOLDER`` reads ``what.json`` there: recipe, index, blind, and the points, each a function
that is about to be called for so many-th time. Says what ended each child, as a list of signals.
"""

import importlib
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import torch

from headsr.recipes import Blind, ModelRecipe, build
from headsr.training import loop
from headsr.training.chain import Sources, train_segment


def kill_at(place, number):
    """Have this process kill itself when a function is called for the ``number``-th time, from 1."""
    module, _, name = place.rpartition(".")
    holder, calls = importlib.import_module(module), itertools.count(1)
    function = getattr(holder, name)

    def called(*words, **more):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*words, **more)

    setattr(holder, name, called)


def main(folder):
    what = json.loads((folder / "what.json").read_text())
    recipe, blind = build(ModelRecipe, what["recipe"], "killed"), build(Blind, what["blind"], "blind")
    loop.ROLLING_SECONDS = 0.0
    ended = []
    for place, number in what["points"]:
        # Nothing has run in this process that a fork would take along half done.
        if child := os.fork():
            ended.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            continue
        torch.set_num_threads(1)
        kill_at(place, number)
        train_segment(
            recipe,
            Sources(Path(what["index"]), (), blind, {"train_segment": 1}),
            segment=0,
            course=recipe.course(0),
            previous=None,
            state=folder / "segment-0.safetensors",
            history=folder / "segment-0.jsonl",
            scratch=folder / "scratch",
        )
        os._exit(0)
    print(json.dumps(ended))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
