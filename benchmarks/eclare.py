"""One thick scan by ECLARE, which trains on it alone, beside headsr's methods.

Run: python benchmarks/eclare.py SCANS --program run-eclare --weights FILE [--patches 4000 40000] [--head sub-chris_T1w]

ECLARE (Remedios et al. 2023 and 2025; PyPI eclare 1.0.1, GPL) is run as a program, installed in an environment of its
own. It is told the slice profile; its number of patches says how long it trains. Its volume comes to the truth's grid
by its own header. The head, its scan (x4, box, no noise) and the scoring are those of benchmarks/unrolled.py; ECLARE's
volume is scored as it is and projected onto the scan, as headsr's own are.
"""

import argparse
import os
import subprocess
import tempfile
import time
from pathlib import Path

import nibabel
import numpy as np
import torch
from scipy import ndimage
from unrolled import HEADS, METHODS, Row, made, measured, networks, scores, truth_of

from headsr.files import sha256_of
from headsr.reconstruct.projected import project_onto
from headsr.volumes import save_volume

FACTOR, SCALE, PATIENCE_S = 4, 1000.0, 3600


def on_grid(path, grid):
    """A volume of any grid at the voxels of another one (X, Y, Z), linear between its own."""
    image = nibabel.load(path)
    matrix = np.linalg.inv(image.affine) @ grid.affine
    return ndimage.affine_transform(
        np.asarray(image.dataobj, dtype=np.float32), matrix[:3, :3], matrix[:3, 3], grid.shape, order=1, mode="nearest"
    )


def eclare(program, study, patches, threads):
    """ECLARE's volume on the study's grid and the seconds it took; RuntimeError with its last words if it fails."""
    scan = study.scans[0]
    with tempfile.TemporaryDirectory(prefix="headsr-eclare-") as folder:
        thick, output = Path(folder, "thick.nii.gz"), Path(folder, "made")
        save_volume(thick, scan.data.numpy() * np.float32(SCALE), scan.operator.scan)
        words = [program, "--in-fpath", thick, "--out-dir", output, "--n-patches", patches, "--gpu-id", -1]
        words += ["--relative-slice-thickness", 1.0, "--relative-slice-profile-type", "rect"]
        start, threads = time.monotonic(), {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        run = subprocess.run(
            list(map(str, words)), capture_output=True, text=True, timeout=PATIENCE_S, env={**os.environ, **threads}
        )
        seconds, found = time.monotonic() - start, sorted(output.rglob("*.nii*"))
        if run.returncode != 0 or len(found) != 1:
            raise RuntimeError(f"{program}: {(run.stderr or run.stdout)[-2000:]}; files: {found}")
        return on_grid(found[0], study.head) / SCALE, seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", nargs="?", help="BIDS folder that holds the heads")
    parser.add_argument("--program", help="run-eclare of its own environment")
    parser.add_argument("--weights", help="of the operator-aware network")
    parser.add_argument("--patches", type=int, nargs="+", default=[4000, 40000], help="that ECLARE trains on")
    parser.add_argument("--head", choices=HEADS, default=HEADS[0])
    arguments = parser.parse_args()
    if arguments.scans is None or arguments.program is None or arguments.weights is None:
        print("Nothing measured: name a folder of scans, ECLARE's program and weights")
        return
    row, threads = Row("thick", FACTOR, 0, arguments.head), torch.get_num_threads()
    truth, head, inside = truth_of(arguments.scans, row.head)
    study = measured(row, truth, head)
    print(f"{row.name}; {threads} threads; weights {sha256_of(arguments.weights)[:12]}")
    print("| method | PSNR | projected | seam ratio | FSC mm | seconds |\n|---|---:|---:|---:|---:|---:|")

    def show(name, volume, seconds, own=None):
        found = scores(row, volume, truth, inside)
        alone = "" if own is None else f"{scores(row, own, truth, inside)['psnr']:.2f}"
        numbers = (alone, f"{found['psnr']:.2f}", f"{found['seam ratio']:.2f}", f"{found['FSC mm']:.2f}")
        print(f"| {' | '.join((name, *numbers, f'{seconds:.0f}'))} |", flush=True)

    learned, models = networks(network=arguments.weights)
    for name, method in ({one: METHODS[one] for one in ("spline", "tikhonov")} | learned).items():
        start = time.monotonic()
        volume = made(study, method, models)[0]
        show(name, volume, time.monotonic() - start)
    for patches in arguments.patches:
        own, seconds = eclare(arguments.program, study, patches, threads)
        show(f"ECLARE, {patches} patches", project_onto(own, study)[0], seconds, own)


if __name__ == "__main__":
    main()
