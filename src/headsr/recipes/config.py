"""What to run today: the keys of ``config/config.yaml`` and of the deltas that are laid over it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_type_hints

from headsr.recipes.convert import Doc, Matching, Range

_Positive = Annotated[float, Range(0, math.inf, above=True, below=True)]
_A_PATH = "a path"
_Path = Annotated[str, Matching(r"(?s).*\S.*", _A_PATH)]
_Sizes = tuple[_Positive, ...]
_Blocks = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Larger:
    """One larger volume; one of shape, voxel_mm and scale says how large."""

    shape: Annotated[_Sizes | None, Doc("Voxels: one number, or one along each of x, y and z.")] = None
    voxel_mm: Annotated[_Sizes | None, Doc("Voxel size in mm: one number, or one along each axis.")] = None
    scale: Annotated[_Sizes | None, Doc("Times as many voxels as the head's own grid has: one number or three.")] = None
    dtype: Annotated[Literal["float32", "float16", "uint16"], Doc("Of the stored voxels; uint16 has a slope.")] = (
        "float32"
    )
    runtime_min: Annotated[
        int, Range(1), Doc("Minutes that one render may take; its plan says how many it will need.")
    ] = 120

    def __post_init__(self) -> None:
        sizes = {key: value for key in ("shape", "voxel_mm", "scale") if (value := getattr(self, key)) is not None}
        if len(sizes) != 1:
            raise ValueError(f"give one of shape, voxel_mm and scale, not {' and '.join(sizes) or 'none'}")
        ((key, value),) = sizes.items()
        if len(value) not in (1, 3):
            raise ValueError(f"{key}: needs one number, or three, not {len(value)}")


@dataclass(frozen=True, kw_only=True)
class Render:
    """How fields become volumes; one task writes one whole shard."""

    chunk: Annotated[int, Range(8), Doc("Voxels a side that are evaluated, compressed and read at once.")]
    shard: Annotated[int, Range(8), Doc("Voxels a side of one file; a multiple of the chunk.")]
    scheduler: Annotated[
        Literal["threads", "local", "slurm"],
        Doc("Threads of the job, processes on its node, or jobs of their own that Dask asks SLURM for."),
    ]
    workers: Annotated[int, Range(1), Doc("How many chunks (threads) or shards are in work at once.")]
    larger: Annotated[
        dict[
            Annotated[str, Matching(r"(?!hi$)[A-Za-z0-9]{1,32}", "a label of letters and digits, and not hi")], Larger
        ],
        Doc(
            "Further volumes of every fitted field, by their res- label. They cover the head's box, leave out the air "
            "around the head and are not scored."
        ),
    ]


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files that give names their meaning."""

    datasets: Annotated[_Path, Doc("Where each dataset comes from.")]
    degradations: Annotated[_Path, Doc("Named ways to make low-resolution scans.")]
    blind: Annotated[_Path, Doc("The blind degradations of training slices by name.")]
    models: Annotated[_Path, Doc("Folder with one file per trained model.")]
    methods: Annotated[_Path, Doc("Named ways to make a volume.")]
    tables: Annotated[_Path, Doc("Which methods are compared on which degradations.")]


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Changes laid over the recipe files, part by part."""

    datasets: Annotated[_Blocks, Doc("Changed or added datasets.")] = field(default_factory=dict)
    degradations: Annotated[_Blocks, Doc("Changed or added degradations.")] = field(default_factory=dict)
    blind: Annotated[_Blocks, Doc("Changed or added blind degradations.")] = field(default_factory=dict)
    models: Annotated[_Blocks, Doc("Changed or added models.")] = field(default_factory=dict)
    methods: Annotated[_Blocks, Doc("Changed or added methods.")] = field(default_factory=dict)
    tables: Annotated[_Blocks, Doc("Changed or added tables.")] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to run today."""

    results: Annotated[_Path, Doc("Folder that every output goes to.")]
    mlflow: Annotated[_Path, Doc("SQLite file that histories and scores are mirrored to, for `mlflow ui`.")]
    scans: Annotated[_Path, Doc("The scan table that pins every scan by its content key; written by `headsr pin`.")]
    labelmaps: Annotated[_Path, Doc("The table that pins every label map by its content key; written by `headsr pin`.")]
    clones: Annotated[_Path, Doc("Folder that holds one DataLad clone per dataset.")]
    fetches_at_once: Annotated[
        int,
        Range(1),
        Doc("Scans fetched from one dataset at a time, by all jobs of all runs that share its clone; others wait."),
    ]
    voxel_mm: Annotated[
        _Positive | None,
        Doc("Average scans to this voxel size before anything else; null works at full resolution."),
    ]
    template_voxel_mm: Annotated[_Positive, Doc("Voxel size of the template that scans are registered to, in mm.")]
    render: Annotated[Render, Doc("How fields become volumes.")]
    tables: Annotated[
        tuple[str, ...], Doc("The tables of `recipes.tables` to make; they decide what is reconstructed.")
    ]
    recipes: Annotated[Files, Doc("The files that give names their meaning.")]
    overrides: Annotated[Overrides, Doc("Changes laid over the recipe files.")] = field(default_factory=Overrides)


def paths_of(kind: type) -> list[str]:
    """The keys of a block of the configuration that are paths."""
    hints = get_type_hints(kind, include_extras=True)
    said = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
    return [name for name, parts in said.items() if any(getattr(part, "what", "") == _A_PATH for part in parts)]
