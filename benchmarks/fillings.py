"""What fills the feed-forward slot of the denoiser best: parameters, memory, time and validation loss side by side.

Run: python benchmarks/fillings.py INDEX --autoencoder WEIGHTS --results FOLDER [--steps 2500] [--seeds 1 2 3]
     [--only kan ...] [--check]

The committed recipe of the denoiser at the size of SMALL, on slices painted from the anatomies that INDEX lists. They
are encoded once, by the frozen autoencoder WEIGHTS, and kept in FOLDER with every finished run, so that what was
stopped goes on; several processes may share the runs by --only or --seeds. Of one seed all fillings see the same slices
and noise. The loss is that of training, on slices of anatomies that no training sees, with the same noise for every
run.

At equal width a filling works on the channels of the slot. At equal parameters it is as wide as takes the slot nearest
to the number of another filling, between two 1 x 1 convolutions (matched_width). Time is a step's, in turns: of the
processor on a CPU, or the clock's on a GPU. Memory is what two steps add at their peak (benchmarks/networks_2d.py),
also with the blocks checkpointed. --check trains twice in another order and says whether the bytes are the same.
"""

import argparse
import bisect
import functools
import hashlib
import statistics
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from networks_2d import peak_mib
from torch import nn

from headsr.devices import choose_device, choose_precision, generator_of
from headsr.files import read_json, sha256_of, write_json
from headsr.losses.composite import weighted_sum
from headsr.networks.attention import TransformerBlock
from headsr.networks.autoencoder import encode
from headsr.networks.blocks import PixelNorm, checkpoint_blocks
from headsr.networks.build import build_network
from headsr.networks.feedforward import FEED_FORWARDS
from headsr.recipes import ModelRecipe, build, load_config, load_recipes, merged, plain
from headsr.training.chain import fingerprint_of, with_last_line
from headsr.training.data.slices import Pairs, SlicePairs
from headsr.training.loop import Plan, forget_rolling, train, weights_of
from headsr.training.schedules import rate_of
from headsr.training.task import Setting
from headsr.training.tasks.ldm import DenoisingTask
from headsr.weights import TrainedModel, load_model, load_tensors, save_tensors

RECIPE = "ldm"
SMALL = {
    "network": {"channels": [32, 64, 128], "blocks": 1, "attention": [False, True, True]},
    "data": {"source": "labels", "datasets": ["synthseg"], "crop": 64},
    "budget": {"batch": 16, "segments": 1},
    "optimizer": {"learning_rate": 1e-3},
    "ema_decay": 0.998,
}
EXAMPLES = {"train": 4096, "val": 256}  # multiples of 32, the slices that a batch takes at most
VALIDATION_SEED = 0
ROUNDS, TIMED, CHECKED = 3, 8, 20  # steps that are timed, and that --check takes


@dataclass(frozen=True)
class Variant:
    """A filling at the width of the slot, or at that of as many parameters as the filling ``like`` has there."""

    filling: str
    like: str = ""

    @property
    def name(self):
        return f"{self.filling}_as_{self.like}" if self.like else self.filling

    @property
    def words(self):
        return f"{self.filling}, as many as {self.like}" if self.like else self.filling

    def in_slot(self, channels):
        """What fills a slot of so many channels."""
        if not self.like:
            return FEED_FORWARDS[self.filling](channels)
        return Between(self.filling, channels, matched_width(self.filling, self.like, channels))

    def network(self, block):
        """The denoiser of a recipe's ``network`` with this in its slots."""
        unet = build_network({**block, "feedforward": self.filling})
        if self.like:
            for slot in slots_of(unet):
                slot.feedforward = self.in_slot(slot.norm2.gain.numel())
        return unet


# geglu is what all others are beside; last it is as small as the smallest but one.
VARIANTS = (
    *(Variant(filling) for filling in FEED_FORWARDS),
    *(Variant(filling, "geglu") for filling in FEED_FORWARDS if filling != "geglu"),
    Variant("geglu", "metafunkan"),
)


class Between(nn.Module):
    """A filling of ``width`` channels between two projections; it starts as no change, as they all do."""

    def __init__(self, filling, channels, width):
        super().__init__()
        self.narrow, self.norm = nn.Conv2d(channels, width, 1), PixelNorm(width)
        self.filling = FEED_FORWARDS[filling](width)
        self.widen = nn.Conv2d(width, channels, 1, bias=False)

    def forward(self, features):
        return self.widen(self.filling(self.norm(self.narrow(features))))


@functools.cache
def matched_width(filling, like, channels):
    """The width of a filling at which its slot has nearest to the parameters that ``like`` has in it."""
    with torch.device("meta"):
        wanted, widths = numbers(FEED_FORWARDS[like](channels)), range(1, 16 * channels)
        at = functools.cache(lambda width: numbers(Between(filling, channels, width)))
        above = bisect.bisect_left(widths, wanted, key=at)
        return min(widths[max(0, above - 1) : above + 1], key=lambda width: abs(at(width) - wanted))


def numbers(module):
    return sum(parameter.numel() for parameter in module.parameters())


def slots_of(unet):
    return [module for module in unet.modules() if isinstance(module, TransformerBlock)]


class Examples:
    """Pairs whose clean slices are latents: every one once a round, in the order of a seed."""

    def __init__(self, pairs, size, seed):
        self.pairs, self.size, self.seed = pairs, size, seed

    def batch(self, step, size=None):
        size = size or self.size
        turn, start = divmod(step * size, len(self.pairs.clean))
        order = torch.randperm(len(self.pairs.clean), generator=generator_of(self.seed, "examples", turn))
        chosen = order[start : start + size].to(self.pairs.clean.device)
        return Pairs(*(tensor[chosen] for tensor in self.pairs))


class OnExamples(DenoisingTask):
    """The denoiser's training on slices that are latents already, validated by its loss; when its steps began."""

    def __init__(self, setting):
        super().__init__(setting)
        self.began = []

    def latents(self, images):
        return images

    def terms(self, turn, networks, step):
        self.began.append(clock(self.setting.device))
        return super().terms(turn, networks, step)

    @torch.no_grad()
    def validate(self, network):
        held_out, recipe = self.setting.held_out, replace(self.setting.recipe, seed=VALIDATION_SEED)
        task = OnExamples(replace(self.setting, train=held_out, recipe=recipe))
        batches = range(len(held_out.pairs.clean) // held_out.size)
        terms = [task.terms("network", {"network": network}, step) for step in batches]
        return {"loss": float(torch.stack([weighted_sum(one, weights_of("network", recipe)) for one in terms]).mean())}


def clock(device):
    """Seconds: of the processor, whatever else the machine does, or until a GPU is done."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


@dataclass(frozen=True)
class Bench:
    """What all runs have in common: the recipe, the autoencoder's weights, the encoded slices by split, the device."""

    recipe: ModelRecipe
    autoencoder: TrainedModel
    examples: dict[str, Pairs]
    device: torch.device

    def trained(self, variant, seed, steps, scratch, *, checkpointed=False):
        """A training of so many steps: its history with the loss at its end, its network, when its steps began."""
        recipe = replace(self.recipe, seed=seed, budget=replace(self.recipe.budget, steps=steps))
        held_out = Examples(self.examples["val"], recipe.budget.batch, VALIDATION_SEED)
        given = Examples(self.examples["train"], recipe.budget.batch, seed)
        companions = {recipe.autoencoder: self.autoencoder}
        task = OnExamples(Setting(recipe, given, held_out, companions, self.device, variant.network))
        torch.manual_seed(seed)
        networks = {name: network.to(self.device) for name, network in task.networks().items()}
        task.begin(networks)
        if checkpointed:
            checkpoint_blocks(networks["network"])
        identity = {"variant": variant.name, "recipe": plain(recipe), "examples": self.digest}
        rate, scratch = rate_of(recipe, recipe.course(0), last=steps), Path(scratch)
        scratch.mkdir(parents=True, exist_ok=True)
        plan = Plan(f"{variant.name}, seed {seed}", recipe, identity, identity, 0, steps, rate, scratch)
        result = train(task, networks, plan)
        forget_rolling(plan)
        network = result.learners["network"].averaged
        return with_last_line(result.history, steps, task.validate(network)), network, task.began

    @functools.cached_property
    def digest(self):
        return digest_of({f"{split}.{n}": t for split, pairs in self.examples.items() for n, t in enumerate(pairs)})


def digest_of(tensors):
    """Hex SHA-256 of named tensors."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        found.update(name.encode() + tensors[name].cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def small_recipe(autoencoder):
    """The committed recipe at the size of the benchmark, for the latents of an autoencoder."""
    fitting = {"latent_channels": autoencoder.latent_channels, "condition_factor": autoencoder.factor}
    committed = plain(load_recipes(load_config([])).models[RECIPE])
    return build(ModelRecipe, merged(merged(committed, SMALL), {"network": fitting}), RECIPE)


@torch.no_grad()
def encoded(recipe, blind, index, autoencoder, split, device):
    """The examples of a split, their slices encoded."""
    source, parts = SlicePairs(recipe, index, split=split, blind=blind, device=device), []
    for step in range(EXAMPLES[split] // 32):
        pairs = source.batch(step, 32)
        parts.append(pairs._replace(clean=encode(autoencoder, pairs.clean).float()))
    return Pairs(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def blank_examples(recipe, device):
    """Examples of noise, of which a step takes as long and as much memory."""
    shape = SlicePairs.blank(recipe, 32)
    side = recipe.data.crop // recipe.network["condition_factor"]
    latents = torch.randn(32, recipe.network["latent_channels"], side, side)
    tensors = (latents, torch.rand(shape.degraded.shape), torch.zeros(32, dtype=torch.long), torch.ones(32, 2))
    pairs = Pairs(*(tensor.to(device) for tensor in (*tensors, torch.ones(32))))
    return {"train": pairs, "val": pairs}


class Results:
    """The folder of a benchmark: its setting, the encoded slices, the costs, and a file for every finished run."""

    def __init__(self, folder, setting):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "setting.json"
        if path.exists() and read_json(path) != setting:
            raise SystemExit(f"{path}: other runs were made here, with another recipe or data. Name another folder")
        write_json(path, setting)

    def examples(self, make):
        """The encoded slices by split; ``make`` gives those of a split where they are not there yet."""
        found = {}
        for split in EXAMPLES:
            path = self.folder / f"examples_{split}.safetensors"
            if not path.exists():
                print(f"encoding {EXAMPLES[split]} slices of {split}", flush=True)
                save_tensors(path, make(split)._asdict(), {})
            found[split] = Pairs(**load_tensors(path)[0])
        return found

    def kept(self, name, make):
        """What a file of results says, which is made where it is not there yet."""
        path = self.folder / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def runs(self, variant):
        """The finished runs of a variant by seed."""
        found = [read_json(path) for path in sorted(self.folder.glob(f"run_{variant.name}_seed*.json"))]
        return {run["seed"]: run for run in found}


def peaks(bench, scratch):
    """What the training of every variant adds to the memory, in MiB: as it is, and checkpointed."""

    def peak(variant, checkpointed):
        def two_steps():
            with redirect_stdout(None):
                bench.trained(variant, 1, 2, scratch, checkpointed=checkpointed)

        return peak_mib(lambda: argparse.Namespace(step=two_steps), bench)

    return {v.name: {"mib": peak(v, False), "checkpointed_mib": peak(v, True)} for v in VARIANTS}


def seconds(bench, scratch):
    """A step of every variant: the median of rounds in which they take turns, since machines are not always as fast."""
    rounds = {variant.name: [] for variant in VARIANTS}
    for _ in range(ROUNDS):
        for variant in VARIANTS:
            with redirect_stdout(None):
                began = bench.trained(variant, 1, TIMED, scratch)[2]
            rounds[variant.name] += [after - before for before, after in pairwise(began)][1:]
    return {name: statistics.median(times) for name, times in rounds.items()}


def costs(bench, scratch):
    memory, taken, found = peaks(bench, scratch), seconds(bench, scratch), {}
    for variant in VARIANTS:
        unet = variant.network(bench.recipe.network)
        in_slots = sum(numbers(slot.feedforward) for slot in slots_of(unet))
        found[variant.name] = {"parameters": numbers(unet), "in_slots": in_slots, **memory[variant.name]}
        found[variant.name]["seconds"] = taken[variant.name]
    return found


def run(bench, variant, seed, steps, scratch):
    """What is kept of a training: equal for equal inputs, to the byte."""
    history, network, _ = bench.trained(variant, seed, steps, scratch)
    curve = [[line["step"], line["loss"]] for line in history if "loss" in line]
    return {"variant": variant.name, "seed": seed, "curve": curve, "weights": digest_of(network.state_dict())}


def same_bytes(bench, variants, steps):
    """Whether every variant ends at the same bytes when they are trained in another order and with another between."""
    found = []
    for order in (variants, [*variants[::-1], variants[0]]):
        with tempfile.TemporaryDirectory() as scratch:
            found.append({variant: run(bench, variant, 1, steps, scratch) for variant in order})
    return found[0] == found[1]


def loss_at(curve, step):
    """The loss of a curve at a step, which need not be whole."""
    return float(np.interp(step, *zip(*curve, strict=True)))


def spread(values, sign=""):
    """The mean of some values and their deviation."""
    deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.4f}{deviation}" if values else ""


def table(found, cost, steps):
    """One line a variant: what it costs, its loss after all steps and after the time that the fastest took for them.

    Beside each the difference from geglu of the same seed.
    """
    whole = steps * min(cost[variant.name]["seconds"] for variant in found)
    yield (
        f"| filling | parameters | in the slots | MiB | checkpointed | ms a step | of geglu's | loss, {steps} steps "
        f"| over geglu | loss, {whole:.0f} s | over geglu |\n|---|{'---:|' * 10}"
    )
    fastest = {variant: whole / cost[variant.name]["seconds"] for variant in found}
    for variant, runs in found.items():
        one, cells = cost[variant.name], []
        for at in (dict.fromkeys(found, steps), fastest):
            losses = {seed: loss_at(run["curve"], at[variant]) for seed, run in runs.items()}
            beside = found.get(Variant("geglu"), {})
            over = [losses[s] - loss_at(beside[s]["curve"], at[Variant("geglu")]) for s in losses if s in beside]
            cells += [spread(list(losses.values())), "" if variant == Variant("geglu") else spread(over, "+")]
        ratio = one["seconds"] / cost["geglu"]["seconds"]
        counts = f"{one['parameters']:,} | {one['in_slots']:,} | {one['mib']:.0f} | {one['checkpointed_mib']:.0f}"
        yield f"| {variant.words} | {counts} | {1000 * one['seconds']:.1f} | {ratio:.2f} | {' | '.join(cells)} |"


def curves(found, steps):
    """The mean loss of every variant at steps that double."""
    at = [step for step in (100 * 2**n for n in range(20)) if step < steps] + [steps]
    yield f"| loss after | {' | '.join(map(str, at))} |\n|---|{'---:|' * len(at)}"
    for variant, runs in found.items():
        means = [statistics.mean(loss_at(run["curve"], step) for run in runs.values()) for step in at]
        yield f"| {variant.words} | {' | '.join(f'{mean:.4f}' for mean in means)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", nargs="?", help="list of anatomies")
    parser.add_argument("--autoencoder", help="weights of the autoencoder")
    parser.add_argument("--results", help="folder that keeps the encoded slices and the finished runs")
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", nargs="+", default=[one.name for one in VARIANTS], help="variants: kan, kan_as_geglu")
    parser.add_argument("--check", action="store_true", help="only whether the order of runs matters")
    options = parser.parse_args()
    if None in (options.index, options.autoencoder, options.results):
        print("Nothing measured: name a list of anatomies, weights of an autoencoder and a folder for the results")
        return
    device = choose_device()
    autoencoder = load_model(options.autoencoder, device=device)
    recipe = small_recipe(autoencoder.module)
    setting = {"recipe": {**plain(recipe), "seed": 0}, "examples": EXAMPLES, "steps": options.steps}
    setting |= {"autoencoder": sha256_of(options.autoencoder), "index": fingerprint_of(read_json(options.index))}
    results = Results(options.results, setting)
    precision = choose_precision(recipe.precision, device) or torch.float32
    print(f"{device}, {precision}, {torch.get_num_threads()} threads, {recipe.budget.batch} slices of {SMALL['data']}")
    scratch = results.folder / "scratch"
    cost = results.kept(
        "costs", lambda: costs(Bench(recipe, autoencoder, blank_examples(recipe, device), device), scratch)
    )
    blind = load_recipes(load_config([])).blind[recipe.data.degradation]
    made = functools.partial(encoded, recipe, blind, options.index, autoencoder.module, device=device)
    examples = {s: Pairs(*(t.to(device) for t in one)) for s, one in results.examples(lambda s: made(split=s)).items()}
    bench = Bench(recipe, autoencoder, examples, device)
    variants = [variant for variant in VARIANTS if variant.name in options.only]
    if options.check:
        same = same_bytes(bench, variants, CHECKED)
        print(f"{CHECKED} steps of {len(variants)} variants in another order: {'the same' if same else 'OTHER'} bytes")
        return
    for seed in options.seeds:
        for variant in variants:
            made = functools.partial(run, bench, variant, seed, options.steps, scratch / f"{variant.name}_seed{seed}")
            kept = results.kept(f"run_{variant.name}_seed{seed}", made)
            print(f"{variant.name}, seed {seed}: {kept['curve'][-1][1]:.4f}", flush=True)
    found = {variant: runs for variant in VARIANTS if (runs := results.runs(variant))}
    print("", *table(found, cost, options.steps), "", *curves(found, options.steps), sep="\n")


if __name__ == "__main__":
    main()
