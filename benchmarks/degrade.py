"""How many slices a second the blind degradation makes, against the same steps image by image with SciPy and Pillow.

Run: python benchmarks/degrade.py [--model edsr] [--sizes 256 512] [--batch 16] [--batches 6] [--threads 2]
     [--device cuda]

Both follow the same draws, those of a model's recipe in the fixed order, on the same slices. The serial side is
written as one writes it with scipy.ndimage, scipy.fft, scipy.signal and Pillow; noise is the same field on both sides,
so both draw it with torch. Kernels that are sampled and cut off there and exact here, Pillow's cubic and its box are
why the images differ a little: the PSNR between them is printed. Matrices of thick slices are kept by both sides.
"""

import argparse
import os
import statistics
import time
from dataclasses import replace

# Threads that wait must not keep a core busy that somebody else works on; to be said before torch starts them.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from PIL import Image
from scipy import fft, ndimage, signal, special

from headsr.degrade.bias import WAVES
from headsr.degrade.compression import LUMINANCE
from headsr.degrade.noise import white_noise
from headsr.degrade.pipeline import BlindDegradation
from headsr.degrade.resample import ThickSlices, matrices
from headsr.recipes import load_config, load_recipes
from headsr.seeds import seed_of

REPEATS = 5
PILLOW = {
    "area": Image.Resampling.BOX,
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Transform.AFFINE,
    "bicubic": Image.Transform.AFFINE,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="edsr")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = replace(load_recipes(load_config([])).models[arguments.model].degradation, order="fixed")
    degrade = BlindDegradation(recipe, device=arguments.device)
    for size in arguments.sizes:
        compare(degrade, size, arguments.batch, arguments.batches)


def compare(degrade: BlindDegradation, size: int, n: int, batches: int) -> None:
    """Time both sides on the same batches, in turns, after a first round that fills the caches of matrices."""
    slices, pixel_mm = heads(n, size), torch.ones(n, 2)
    batched, serial, errors = [], [], []
    moved, arrays = slices.to(degrade.device), slices[:, 0].numpy()
    for batch in range(batches):
        seeds = [seed_of("benchmark", size, batch, i) for i in range(n)]
        together = degrade(moved, pixel_mm, seeds)
        one_by_one = [degrade_one(*pair) for pair in zip(arrays, together.metadata, strict=True)]
        errors += [psnr(a, b) for a, b in zip(together.images[:, 0].cpu().numpy(), one_by_one, strict=True)]
        sides = (
            lambda: degrade(moved, pixel_mm, seeds),  # noqa: B023
            lambda: [degrade_one(*pair) for pair in zip(arrays, together.metadata, strict=True)],  # noqa: B023
        )
        times = [[seconds(side, degrade.device) for side in sides] for _ in range(REPEATS)]
        fastest = [min(side) for side in zip(*times, strict=True)]
        batched.append(fastest[0])
        serial.append(fastest[1])
    print(
        f"{size}^2: {n * batches / sum(batched):.0f} slices/s batched on {degrade.device}, "
        f"{n * batches / sum(serial):.0f} one by one with SciPy and Pillow: {sum(serial) / sum(batched):.1f} times as "
        f"many ({batches} batches of {n}, each the best of {REPEATS}). "
        f"PSNR between both: median {statistics.median(errors):.1f} dB, lowest {min(errors):.1f} dB"
    )


def seconds(call, device) -> float:
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def heads(n: int, size: int) -> torch.Tensor:
    """Ellipses with a grating: slices (N, 1, size, size) that are dark outside."""
    rows, columns = np.linspace(-1, 1, size)[:, None], np.linspace(-1, 1, size)
    head = (rows**2 / 0.8 + columns**2 / 0.6 < 1) * (0.6 + 0.3 * np.sin(20 * rows + 9 * np.cos(14 * columns)))
    return torch.as_tensor(ndimage.gaussian_filter(head, size / 256), dtype=torch.float32).expand(n, 1, -1, -1).clone()


def psnr(image: np.ndarray, other: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((image - other) ** 2) + 1e-20))


def degrade_one(image: np.ndarray, sample: dict) -> np.ndarray:
    """One slice (H, W), step by step, as its metadata say."""
    if sample["bias"]:
        image = image * bias(image.shape, **sample["bias"])
    for stage in sample["stages"]:
        fine, pixel_mm = image.shape, list(sample["pixel_mm"])
        for name in stage["order"]:
            if not stage[name]:
                continue
            draw = stage[name]
            if name == "blur":
                image = blur(image, pixel_mm, **draw)
            elif name == "thick":
                image = matrices(fine[0], ThickSlices(**draw))[0].numpy() @ image
                pixel_mm[0] *= draw["factor"]
            elif name == "resize":
                image = resize(image, bool(stage["thick"]), **draw)
            elif name == "ringing":
                image = cut(image, bool(stage["thick"]), **draw)
            elif name == "noise":
                image = noise(image, fine, bool(stage["thick"]), **draw)
            elif name == "jinc":
                image = convolve(image, jinc(**draw))
            elif name == "compression":
                image = compress(image, **draw)
        if image.shape != fine:
            image = interpolate(image, fine, stage["thick"])
    return image


def bias(shape, on, strength, weights):
    order = np.add.outer(np.arange(WAVES), np.arange(WAVES))
    smooth = np.where((order > 0) & (order <= 3), weights, 0) / (1 + order) ** 2
    waves = [np.cos(np.pi * np.arange(WAVES)[:, None] * (np.arange(n) + 0.5) / n) for n in shape]
    field = (waves[0].T @ smooth @ waves[1]).astype(np.float32)
    return 1 + strength * (2 * (field - field.min()) / np.ptp(field) - 1)


def blur(image, pixel_mm, kernel, sigma_mm=None, angle=None, beta=1.0, cutoff=None, radius_px=None):
    if kernel == "jinc":
        return convolve(image, jinc(cutoff, radius_px))
    if kernel == "isotropic":
        return ndimage.gaussian_filter(image, np.divide(sigma_mm, pixel_mm), mode="reflect")
    reach = int(np.ceil(6 * max(np.divide(sigma_mm, pixel_mm)))) if kernel != "anisotropic" else 6
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    inverse = np.linalg.inv(turn @ np.diag(np.square(sigma_mm)) @ turn.T)
    place = (np.mgrid[-reach : reach + 1, -reach : reach + 1].T * pixel_mm).transpose(1, 0, 2)
    squared = np.einsum("ija,ab,ijb->ij", place, inverse, place)
    plateau = kernel.startswith("plateau")
    weights = 1 / (1 + squared**beta) if plateau else np.exp(-0.5 * squared**beta)
    return convolve(image, np.where(squared <= 36, weights, 0))


def jinc(cutoff, radius_px):
    reach = int(radius_px)
    place = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1])
    radius = np.where(place > 0, np.pi * cutoff * place, 1e-6)
    fading = np.cos(np.pi / 2 * np.minimum(place / radius_px, 1))
    return special.j1(radius) / radius * fading


def convolve(image, kernel):
    kernel = (kernel / kernel.sum()).astype(np.float32)
    padded = np.pad(image, [(n // 2, n // 2) for n in kernel.shape], mode="symmetric")
    return signal.fftconvolve(padded, kernel, mode="valid")


def resize(image, thick, scale, mode):
    height, width = image.shape[0] if thick else round(image.shape[0] * scale), round(image.shape[1] * scale)
    picture = Image.fromarray(image)
    if mode in ("area", "nearest"):
        return np.asarray(picture.resize((width, height), PILLOW[mode]))
    shrink = (image.shape[1] / width, 0, 0, 0, image.shape[0] / height, 0)
    kind = Image.Resampling.BILINEAR if mode == "bilinear" else Image.Resampling.BICUBIC
    return np.asarray(picture.transform((width, height), PILLOW[mode], shrink, resample=kind))


def cut(image, thick, cutoff, taper):
    axes = (1,) if thick else (0, 1)
    spectrum = fft.dctn(image, axes=axes, norm="ortho")
    for axis in axes:
        share = np.arange(image.shape[axis]) / (cutoff * image.shape[axis])
        fallen = np.clip((share - 1 + taper) / max(taper, 1e-6), 0, 1)
        window = ((share < 1) * (0.5 + 0.5 * np.cos(np.pi * fallen))).astype(np.float32)
        spectrum *= window[:, None] if axis == 0 else window
    return fft.idctn(spectrum, axes=axes, norm="ortho")


def noise(image, fine, thick, kind, seed, sigma, correlation_px):
    # The batch draws whole blocks of rows: the same field needs the same block.
    step = max(24, fine[0] // 16)
    rows = -(-image.shape[0] // step) * step if thick else image.shape[0]
    field = sigma * white_noise([seed], (rows, image.shape[1]), "cpu")[0].numpy()
    if correlation_px:
        widths = (0, 0 if thick else correlation_px, correlation_px)
        field = ndimage.gaussian_filter(field, widths, mode="wrap")
        field *= sigma / field.std()
    field = field[:, : image.shape[0]]
    return np.hypot(image + field[0], field[1]) if kind == "rician" else image + field[0]


def compress(image, quality, offset):
    padded = np.pad(image, [(o, -(n + o) % 8) for n, o in zip(image.shape, offset, strict=True)], mode="symmetric")
    blocks = padded.reshape(padded.shape[0] // 8, 8, padded.shape[1] // 8, 8).transpose(0, 2, 1, 3)
    step = np.array(LUMINANCE, np.float32) * (50 / quality if quality < 50 else 2 - quality / 50) / 255
    coefficients = fft.dctn(blocks, axes=(2, 3), norm="ortho")
    quantised = np.round(coefficients / step) * step
    quantised[..., 0, 0] = coefficients[..., 0, 0]
    whole = fft.idctn(quantised, axes=(2, 3), norm="ortho").transpose(0, 2, 1, 3).reshape(padded.shape)
    return whole[offset[0] : offset[0] + image.shape[0], offset[1] : offset[1] + image.shape[1]]


def interpolate(image, fine, thick):
    """Cubic splines back onto the fine grid: of a thick slice, its centre; of a resized pixel, its cell."""
    step = [m / n for n, m in zip(fine, image.shape, strict=True)]
    first = [size / 2 - 0.5 for size in step]
    if thick:
        step[0], first[0] = 1 / thick["factor"], -ThickSlices(**thick).centres(fine[0])[0] / thick["factor"]
    return ndimage.affine_transform(image, np.array(step), first, output_shape=fine, order=3, mode="nearest")


if __name__ == "__main__":
    main()
