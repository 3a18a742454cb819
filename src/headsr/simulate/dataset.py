"""A dataset of heads simulated from label maps, with the truth of each head beside it as derivatives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from headsr.files import parse_json, read_text, sha256_of, write_json
from headsr.seeds import seed_of
from headsr.simulate.contrast import SEQUENCES
from headsr.simulate.head import head_truth, simulate_head
from headsr.simulate.labelmap import LabelMap, load_label_map
from headsr.simulate.labels import LabelMapError, Structure, find_label_maps, read_structures
from headsr.simulate.lesions import VOLUMES_MM3
from headsr.simulate.publish import generated_by, publish_dataset, write_participants, write_readme, write_scan
from headsr.volumes import save_volume

TRUTH = "derivatives/truth"
_COLUMNS = {
    "participant_id": "Simulated person: one smooth deformation of a label map",
    "label_map": "The label map that the person was made from",
    "lesions": "Degree of multiple-sclerosis-like lesions: none, mild, moderate or severe",
    "lesion_mm3": "Volume of the lesion mask in mm3",
}


def make_simulated_dataset(
    label_maps: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    heads: int,
    suffixes: Sequence[str],
    voxel_mm: tuple[float, float, float],
    lesions: str = "none",
    seed: int = 0,
) -> None:
    """Make a BIDS dataset of ``heads`` people at ``path``, tagged v1, unless it is there already.

    ``label_maps`` is a folder of segmentations with tables (see ``find_label_maps``), taken in turn; ``suffixes`` are
    the contrasts of every head, ``voxel_mm`` the voxels along x, y and z. The truth, on the same voxels, is in
    derivatives/truth. The dataset is complete or absent, and its images have the same bytes every time.
    Raises ValueError for what cannot be simulated, LabelMapError for label maps that cannot be used, DatasetError when
    ``path`` holds something else, and AnnexError when DataLad is missing or fails.
    """
    _refuse_impossible(heads, suffixes, voxel_mm, lesions)
    maps = find_label_maps(label_maps, leaving_out=path)
    size = " x ".join(f"{mm:g}" for mm in voxel_mm)
    made_from = (
        f"headsr simulate: {heads} heads ({', '.join(suffixes)}) at {size} mm, lesions {lesions}, seed {seed}, "
        f"from label maps {seed_of(*(sha256_of(file) for pair in maps for file in pair)):016x}"
    )

    def write(dataset: Path) -> None:
        rows = []
        for number in range(1, heads + 1):
            dseg, table = maps[(number - 1) % len(maps)]
            print(f"simulating sub-{number:02d} of {heads} from {dseg.name}", flush=True)
            person, anatomy = seed_of(seed, number), load_label_map(dseg, table)
            folder = Path(f"sub-{number:02d}") / "anat" / f"sub-{number:02d}"
            for suffix in suffixes:
                scan = simulate_head(anatomy, suffix=suffix, voxel_mm=voxel_mm, seed=person, lesions=lesions)
                write_scan(dataset / folder, scan, suffix=suffix)
            volume = _write_truth(dataset / TRUTH / folder, anatomy, voxel_mm=voxel_mm, seed=person, lesions=lesions)
            rows.append({"participant_id": f"sub-{number:02d}", "label_map": dseg.name, "lesions": lesions})
            rows[-1]["lesion_mm3"] = f"{volume:.0f}"
        write_participants(dataset, rows, _COLUMNS)
        _write_descriptions(dataset, Path(label_maps), made_from)
        _write_lookup(
            dataset / TRUTH / "dseg.tsv", [s for table in {t for _, t in maps} for s in read_structures(table, used=())]
        )

    publish_dataset(path, name="headsr simulated heads", made_from=made_from, write=write)


def _refuse_impossible(heads: int, suffixes: Sequence[str], voxel_mm: Sequence[float], lesions: str) -> None:
    if heads < 1:
        raise ValueError(f"heads: {heads} is not a number of heads. Ask for one or more")
    if unknown := [suffix for suffix in suffixes if suffix not in SEQUENCES]:
        raise ValueError(f"suffix: {', '.join(unknown)} is none of {', '.join(SEQUENCES)}")
    if len(voxel_mm) != 3 or not all(0.2 <= mm <= 20 for mm in voxel_mm):
        raise ValueError(f"voxel_mm: {voxel_mm} must be three numbers from 0.2 to 20 mm")
    if lesions not in VOLUMES_MM3:
        raise ValueError(f"lesions: {lesions} is none of {', '.join(VOLUMES_MM3)}")


def _write_truth(
    stem: Path, anatomy: LabelMap, *, voxel_mm: tuple[float, float, float], seed: int, lesions: str
) -> float:
    """Write labels and lesion mask on the scan's voxels; returns the mask's volume in mm3."""
    truth = head_truth(anatomy, voxel_mm=voxel_mm, seed=seed, lesions=lesions)
    grid, sources = truth.labels.grid, {"SpatialReference": "orig", "Manual": False}
    save_volume(f"{stem}_dseg.nii.gz", truth.labels.data, grid, description="headsr simulated truth")
    save_volume(f"{stem}_label-L_mask.nii.gz", truth.lesions.data, grid, description="headsr simulated lesions")
    write_json(f"{stem}_dseg.json", sources)
    write_json(f"{stem}_label-L_mask.json", {**sources, "Type": "Lesion"})
    return float(truth.lesions.data.sum() * grid.voxel_size.prod())


def _licence_in(description: Path) -> str:
    """The licence that somebody's dataset has by its description; '' where it says none."""
    try:
        said = parse_json(read_text(description))
    except ValueError as error:
        raise LabelMapError(f"{description}: cannot be read, and may say a licence ({error}). Repair it") from error
    licence = said.get("License") if isinstance(said, dict) else None
    return licence if isinstance(licence, str) else ""


def _write_lookup(path: Path, structures: list[Structure]) -> None:
    rows = {s.label: f"{s.label}\t{s.name}\t{s.tissue}" for s in structures}
    path.write_text("\n".join(["index\tname\ttissue", *(rows[n] for n in sorted(rows))]) + "\n", encoding="utf-8")


def _write_descriptions(dataset: Path, label_maps: Path, made_from: str) -> None:
    source = label_maps / "dataset_description.json"
    licence = _licence_in(source) if source.is_file() else ""
    common = {
        "BIDSVersion": "1.10.0",
        "License": licence or "that of the label maps which the heads were made from",
        "Authors": ["headsr simulate"],
        "GeneratedBy": generated_by(made_from),
    }
    raw = {"Name": "Simulated heads with known truth", "DatasetType": "raw", **common}
    truth = {"Name": "Truth of the simulated heads", "DatasetType": "derivative", **common}
    write_json(dataset / "dataset_description.json", raw)
    write_json(dataset / TRUTH / "dataset_description.json", {**truth, "SourceDatasets": [{"URL": "../.."}]})
    write_readme(dataset, _README.format(made_from=made_from))


_README = """# Simulated heads with known truth

{made_from}

Each head is another smooth invertible deformation of a label map, with signal by tissue, texture, vessels, a bias
field of +-20 % and 1 % Rician noise. derivatives/truth holds the labels of every head (dseg) and the mask of its
lesions (label-L_mask) on the voxels of its scans.
"""
