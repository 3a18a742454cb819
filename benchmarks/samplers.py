"""Samplers of a latent diffusion model beside each other, on real heads that no training saw, by their number of steps.

Run: python benchmarks/samplers.py SCANS --model WEIGHTS --encoder WEIGHTS --results FOLDER [--steps 2 4 8 16 32]
     [--only thick ...]
     python benchmarks/samplers.py --model WEIGHTS --sheet FILE --index INDEX

Heads, degradations, projection, PSNR, sharpness and KID are those of benchmarks/slice_networks.py; its cache has what
the classical methods reach there. Every slice that shows what the scan leaves out is sampled, told what the model is
told as the prior of a fit, from noise that is drawn by its place alone: the same for all samplers and numbers of steps.
The volume is the mean over the planes; beside it stands what the first plane gives alone, with KID of its own slices.
First stand the spline and the truth through the autoencoder. Every volume's numbers are kept in the folder of results.
Time is of the processor, for one slice, decoded; memory what a batch adds at its peak (benchmarks/networks_2d.py).

The sheet has 24 slices that are sampled with nothing shown, each with the nearest training slice on its right: that of
the least root mean square difference of block means, of CANDIDATES that the training drew. How near they are is printed
beside how near slices of validation are.
"""

import argparse
import statistics
import time
import warnings
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from networks_2d import peak_mib
from PIL import Image
from slice_networks import PLANES, features_of, rows, scores
from unrolled import made, measured, truth_of

from headsr.devices import choose_device, choose_precision, generator_of
from headsr.diffusion.sample import predict_clean, sample
from headsr.diffusion.schedule import SCHEDULE
from headsr.evaluate.metrics.sets import kid
from headsr.files import sha256_of, whole
from headsr.inr.prior import SlicePrior
from headsr.networks.autoencoder import decode, encode
from headsr.networks.blocks import checkpoint_blocks, padded
from headsr.networks.condition import Condition
from headsr.recipes import ModelRecipe, Spline, build, load_config, load_recipes
from headsr.reconstruct.projected import project_onto
from headsr.weights import load_model, load_tensors, read_metadata, save_tensors

BATCH = 8
WITHOUT_STEPS = ("spline", "truth through the autoencoder")
METHOD = "inr_prior"  # the fit whose prior is such a model
SHEET, ROW, CANDIDATES, BLOCK = 24, 6, 2048, 4
SHEET_STEPS = 50


def own_ddim(unet, noise, condition, *, steps):
    """DDIM with eta = 0 by equation 12 of Song (2021), without diffusers."""
    times, latents = torch.linspace(SCHEDULE.steps - 1, -1, steps + 1).round().long()[:-1].tolist(), noise
    for now, then in zip(times, [*times[1:], None], strict=True):
        clean = predict_clean(unet, latents, now, condition)
        if then is None:
            return clean
        signal, deviation = SCHEDULE.signal_and_noise(torch.tensor([now], device=latents.device), latents)
        residual = (latents - signal * clean) / deviation
        latents = SCHEDULE.add_noise(clean, residual, torch.tensor([then], device=latents.device))


SAMPLERS = {
    "DDIM, our own": own_ddim,
    "DDIM": partial(sample, sampler="ddim"),
    "DPM-Solver++ 2M": partial(sample, sampler="dpm"),
}


class Prior:
    """A latent diffusion model, in its precision, and slices through it."""

    def __init__(self, weights, device):
        self.model, self.device = load_model(weights, device=device), device
        self.unet, self.autoencoder = self.model.module.unet, self.model.module.autoencoder
        self.precision = choose_precision(self.model.precision, device)
        self.fit = load_recipes(load_config([])).methods[METHOD].fit

    @torch.no_grad()
    def sampled(self, sampler, steps, condition, name):
        """Slices (N, H, W) from noise that their place in a named stack alone decides."""
        factor, (height, width) = self.autoencoder.factor, condition.image.shape[-2:]
        image, shown = (padded(tensor, factor) for tensor in (condition.image, condition.shown))
        condition, slices = condition._replace(image=image, shown=shown), []
        size = (self.autoencoder.latent_channels, *(n // factor for n in image.shape[-2:]))
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.precision is not None):
            for start in range(0, len(image), BATCH):
                chosen = torch.arange(start, min(start + BATCH, len(image)))
                noise = torch.stack([torch.randn(size, generator=generator_of(name, int(i))) for i in chosen])
                some = condition.of(chosen.to(self.device))
                latents = sampler(self.unet, noise.to(self.device), some, steps=steps)
                slices.append(decode(self.autoencoder, latents.float())[:, 0, :height, :width].float())
        return torch.cat(slices)

    @torch.no_grad()
    def through(self, slices):
        """Slices (N, H, W) through the autoencoder."""
        height, width = slices.shape[-2:]
        parts = [
            decode(self.autoencoder, encode(self.autoencoder, padded(some[:, None], self.autoencoder.factor)))
            for some in slices.split(BATCH)
        ]
        return torch.cat(parts)[:, 0, :height, :width]


def nothing_shown(planes, side):
    """What a denoiser is told of square slices of 1 mm of which no scan shows anything."""
    image = torch.zeros(len(planes), 1, side, side, device=planes.device)
    numbers = image.new_ones(len(planes))
    return Condition(image, image, planes, numbers[:, None].expand(-1, 2), 0 * numbers)


def stacks_of(prior, study, make):
    """Volumes (X, Y, Z) by the axis across their slices, and seconds a slice.

    ``make`` gives the slices (N, H, W) of one plane, from its axes of stack, rows and columns and from what the model
    is told of them: what it is told as the prior of a fit.
    """
    families, volumes, count = SlicePrior(prior.model, study, fit=prior.fit).families, {}, 0
    start = time.process_time()
    for family in families:
        stack = make(family.order, family.condition)
        volumes[family.order[0]] = stack.permute(tuple(np.argsort(family.order))).cpu().numpy()
        count += len(stack)
    return volumes, (time.process_time() - start) / count


def measure(row, volumes, study, truth, inside, encoder):
    """Numbers and features of the mean of a row's volumes, and of the first alone with those slices that it is made of.

    They are projected onto the scan of a ``study``; without one they are as they are.
    """
    first, numbers, features = next(iter(volumes)), {}, {}
    mean = np.mean(list(volumes.values()), axis=0)
    for name, volume, across in (("mean", mean, PLANES[row.kind]), ("one", volumes[first], (first,))):
        published = projected(volume, study) if study else volume
        numbers[name] = scores(row, published, truth, inside)
        features[name] = features_of(encoder, published, inside, across)
        features[f"truth of {name}"] = features_of(encoder, truth.data, inside, across)
    return numbers, features


def projected(volume, study):
    with redirect_stdout(None), warnings.catch_warnings(action="ignore"):  # the logs, as for the other methods
        return project_onto(volume, study)[0]


class Results:
    """The numbers and features of every volume, each in a file of its own; what is there is not made again."""

    def __init__(self, folder, prior, encoder, setting):
        self.folder, self.prior, self.encoder, self.setting = Path(folder), prior, encoder, setting
        self.folder.mkdir(parents=True, exist_ok=True)

    def of(self, row, scans, name, steps):
        """Numbers and features of one row by one sampler."""
        words = f"{row.degradation}_{row.head}_{name}_{steps}".replace(" ", "_").replace(",", "")
        path = self.folder / f"{words}.safetensors"
        if not path.exists():
            numbers, features = self._made(row, scans, name, steps)
            save_tensors(path, features, {"setting": self.setting, "numbers": numbers})
        features, said = load_tensors(path)
        if said["setting"] != self.setting:
            raise SystemExit(f"{path}: was made with other weights. Name another folder")
        return said["numbers"], features

    def _made(self, row, scans, name, steps):
        truth, head, inside = truth_of(scans, row.head)
        study, taken = measured(row, truth, head), 0.0
        if name == "spline":
            volumes = {PLANES[row.kind][0]: made(study, Spline())[0]}
        elif name in SAMPLERS:
            sampled = partial(self.prior.sampled, SAMPLERS[name], steps)
            volumes, taken = stacks_of(self.prior, study, lambda o, c: sampled(c, f"{row.name} {o[0]}"))
        else:
            whole_head = torch.as_tensor(truth.data, device=self.prior.device)
            volumes, taken = stacks_of(self.prior, study, lambda o, _: self.prior.through(whole_head.permute(o)))
        numbers, features = measure(row, volumes, study if name in SAMPLERS else None, truth, inside, self.encoder)
        return numbers | {"seconds": taken}, features


def table(found):
    """One line for each degradation, sampler and number of steps: means over the heads, KID of their slices together.

    ``found`` has the numbers and features of every head, by degradation, sampler and steps.
    """
    measures = "PSNR | sharpness | KID x 1000 | ± "
    yield f"| scans | sampler | steps | ms a slice | {measures}| one plane: {measures}|\n|---|---|{'---:|' * 10}"
    for (degradation, name, steps), heads in found.items():
        cells = [degradation, name, f"{steps or ''}"]
        cells.append(f"{1000 * statistics.mean(numbers['seconds'] for numbers, _ in heads):.0f}")
        for of in ("mean", "one"):
            cells += [f"{statistics.mean(n[of]['psnr'] for n, _ in heads):.2f}"]
            cells += [f"{statistics.mean(n[of]['sharpness'] for n, _ in heads):.3f}"]
            ours, truth = (torch.cat([f[key] for _, f in heads]).numpy() for key in (of, f"truth of {of}"))
            distance = kid(ours, truth)
            cells += [f"{1000 * distance.value:.3f}", f"{1000 * distance.error:.3f}"]
        yield f"| {' | '.join(cells)} |"


def memory(prior, side):
    """What a batch of square slices adds to the memory in MiB: sampled, and in training as it is and checkpointed."""
    from diffusers import DDIMScheduler, DPMSolverMultistepScheduler  # noqa: F401 - before what is counted

    condition = nothing_shown(torch.zeros(BATCH, dtype=torch.long, device=prior.device), side)
    size = (BATCH, prior.autoencoder.latent_channels, *(2 * [side // prior.autoencoder.factor]))

    def training(checkpointed):
        unet = prior.unet.train().requires_grad_()
        if checkpointed:
            checkpoint_blocks(unet)
        latents, times = torch.randn(size, device=prior.device), torch.zeros(BATCH, dtype=torch.long)

        def step():
            with torch.autocast(prior.device.type, torch.bfloat16, enabled=prior.precision is not None):
                unet(latents, times.to(prior.device), condition).float().square().mean().backward()

        return argparse.Namespace(step=step)

    steps = {name: partial(prior.sampled, sampler, 2, condition, "memory") for name, sampler in SAMPLERS.items()}
    makers = {name: lambda step=step: argparse.Namespace(step=step) for name, step in steps.items()}
    makers |= {"training": lambda: training(False), "training, checkpointed": lambda: training(True)}
    found = {name: peak_mib(make, prior) for name, make in makers.items()}
    prior.unet.eval().requires_grad_(False)
    return found


def drawn(recipe, index, split, count):
    """So many slices (N, H, W) of a training, or of its validation, and their planes: those of its first steps."""
    blind = load_recipes(load_config([])).blind.get(getattr(recipe.data, "degradation", ""))
    source = recipe.data.part.load()(recipe, index, split=split, blind=blind, device=torch.device("cpu"))
    batches = [source.batch(step) for step in range(1, 1 + -(-count // recipe.budget.batch))]
    slices, planes = (torch.cat(of) for of in zip(*((b.clean[:, 0], b.condition.plane) for b in batches), strict=True))
    return slices[:count], planes[:count]


def nearest(slices, planes, others, of_planes):
    """For each slice (N, H, W) the number of the other one of its plane that is nearest, and how far that is."""
    small, candidates = (F.avg_pool2d(images[:, None], BLOCK).flatten(1) for images in (slices, others))
    distance = torch.cdist(small, candidates) / small.shape[1] ** 0.5
    distance[planes[:, None] != of_planes] = torch.inf
    return distance.argmin(dim=1), distance.amin(dim=1)


def sheet(prior, recipe, index, path):
    """Draw the sheet; how far the sampled slices and slices of validation are from training slices."""
    planes = torch.arange(SHEET, device=prior.device) % 3
    condition = nothing_shown(planes, recipe.data.crop)
    slices = prior.sampled(SAMPLERS["DPM-Solver++ 2M"], SHEET_STEPS, condition, "sheet").cpu()
    trained, of_planes = drawn(recipe, index, "train", CANDIDATES)
    chosen, distance = nearest(slices, planes.cpu(), trained, of_planes)
    beside = nearest(*drawn(recipe, index, "val", SHEET), trained, of_planes)[1]
    draw(path, slices, trained[chosen])
    return distance, beside


def draw(path, slices, beside):
    """A picture of pairs in rows, white at 1 or brighter; what lies towards the crown or the face is up."""
    pairs = torch.cat([slices, beside], dim=2).flip(1)
    framed = F.pad(pairs.clamp(0, 1), (3, 3, 3, 3), value=1.0)
    lines = [torch.cat(list(line), dim=1) for line in framed.split(ROW)]
    pixels = (255 * torch.cat(lines)).round().to(torch.uint8).numpy()
    with whole(path) as partial_file:
        Image.fromarray(pixels).save(partial_file, format="PNG", optimize=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="?", help="BIDS folder that holds the heads")
    parser.add_argument("--model", help="weights of a latent diffusion model")
    parser.add_argument("--encoder", help="weights of a slice encoder, for KID")
    parser.add_argument("--results", help="folder that keeps what every volume gives")
    parser.add_argument("--steps", nargs="+", type=int, default=[2, 4, 8, 16, 32])
    parser.add_argument("--only", nargs="+", default=["thick"], help="rows whose name has one of these: scans/head")
    parser.add_argument("--sheet", help="PNG of slices sampled with nothing shown, and their nearest training slices")
    parser.add_argument("--index", help="list of what the model was trained on, for the sheet")
    options = parser.parse_args()
    if options.model is None or (options.sheet and not options.index):
        print("Nothing measured: name weights of a latent diffusion model, and for a sheet what it was trained on")
        return
    prior = Prior(options.model, choose_device())
    if options.sheet:
        recipe = build(ModelRecipe, read_metadata(options.model)["recipe"], options.model)
        ours, others = (one.median() for one in sheet(prior, recipe, options.index, options.sheet))
        print(f"nearest of {CANDIDATES} training slices, median: {ours:.4f}; of slices of validation: {others:.4f}")
        return
    if None in (options.scans, options.encoder, options.results):
        print("Nothing measured: name a folder of scans, weights of a slice encoder and a folder for the results")
        return
    peaks = memory(prior, 96)
    print(f"{prior.device}, {prior.precision or torch.float32}, {torch.get_num_threads()} threads")
    print(f"MiB of {BATCH} slices of 96: {', '.join(f'{name} {mib:.0f}' for name, mib in peaks.items())}", flush=True)
    setting = {"model": sha256_of(options.model), "encoder": sha256_of(options.encoder)}
    results, found = Results(options.results, prior, load_model(options.encoder).module, setting), {}
    wanted = [(name, steps) for steps in options.steps for name in SAMPLERS]
    for row in (row for row in rows() if any(part in row.name for part in options.only)):
        for name, steps in [*((name, 0) for name in WITHOUT_STEPS), *wanted]:
            one = results.of(row, options.scans, name, steps)
            found.setdefault((row.degradation, name, steps), []).append(one)
            print(row.name, name, steps, f"{one[0]['mean']['psnr']:.2f}", flush=True)
    print("", *table(found), sep="\n")


if __name__ == "__main__":
    main()
