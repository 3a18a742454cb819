"""The embedded demo: simulated heads around the MNI152 template, published as a dataset."""

from __future__ import annotations

import os
from pathlib import Path

from headsr.files import write_json
from headsr.seeds import seed_of
from headsr.simulate.anatomy import build_anatomy
from headsr.simulate.head import simulate_head
from headsr.simulate.publish import generated_by, publish_dataset, write_participants, write_readme, write_scan

# The last heads are the test heads; they have a second contrast.
_HEADS_WITH_T2W = 2


def make_demo_dataset(path: str | os.PathLike[str], *, voxel_mm: float, heads: int = 7, seed: int = 0) -> None:
    """Make a BIDS dataset of simulated heads at ``path``, tagged v1, unless it is there already.

    Every head has a T1w, the last two a T2w as well, with cubic voxels of ``voxel_mm`` mm. The images have the same
    bytes every time. The dataset is complete or absent.
    Raises DatasetError when ``path`` holds something else and AnnexError when DataLad is missing or fails.
    """
    made_from = f"headsr simulate: {heads} heads at {voxel_mm:g} mm, seed {seed}"

    def write(dataset: Path) -> None:
        _write_images(dataset, voxel_mm=voxel_mm, heads=heads, seed=seed)
        _write_descriptions(dataset, made_from=made_from, heads=heads)

    publish_dataset(path, name="headsr demo", made_from=made_from, write=write)


def _write_images(dataset: Path, *, voxel_mm: float, heads: int, seed: int) -> None:
    anatomy = build_anatomy()
    for number in range(1, heads + 1):
        for suffix in ("T1w", "T2w") if number > heads - _HEADS_WITH_T2W else ("T1w",):
            print(f"simulating sub-{number:02d} {suffix} ({number} of {heads})", flush=True)
            scan = simulate_head(anatomy, suffix=suffix, voxel_mm=voxel_mm, seed=seed_of(seed, number))
            write_scan(dataset / f"sub-{number:02d}" / "anat" / f"sub-{number:02d}", scan, suffix=suffix)


def _write_descriptions(dataset: Path, *, made_from: str, heads: int) -> None:
    description = {
        "Name": "headsr demo: simulated heads with known truth",
        "BIDSVersion": "1.10.0",
        "DatasetType": "raw",
        "License": "ICBM 2009 templates: free to use, copy, modify and distribute with their copyright notice",
        "Authors": ["headsr simulate"],
        "GeneratedBy": generated_by(made_from),
        "ReferencesAndLinks": ["Fonov et al. 2011, Unbiased average age-appropriate atlases for pediatric studies"],
    }
    write_json(dataset / "dataset_description.json", description)
    columns = {"participant_id": "Simulated person: one smooth deformation of the MNI152 template"}
    write_participants(dataset, [{"participant_id": f"sub-{number:02d}"} for number in range(1, heads + 1)], columns)
    write_readme(dataset, _README.format(made_from=made_from))


_README = """# Simulated heads with known truth

{made_from}

Each head is another smooth invertible deformation of the MNI152 template (ICBM 2009a, as nilearn ships it) with a
skull, a scalp, a face block and a neck added, imaged as T1w (and T2w for the last two heads) with a bias field of
+-20 % and 1 % Rician noise. No person is in these data. For tests and demonstrations only.
"""
