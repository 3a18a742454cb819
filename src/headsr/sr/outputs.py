"""Where the result of one command goes, and what lies beside it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from headsr.files import sidecar_of
from headsr.render.describe import raw_uris
from headsr.scans import IMAGES, image_stem, parse_name
from headsr.volumes import Grid

MOST_OF_NIFTI = 512  # voxels a side: viewers open no larger NIfTI with ease
_STORE = ".ome.zarr"


@dataclass(frozen=True)
class Result:
    """``volume`` is the NIfTI; of a volume larger than that a preview, with all of it in ``store``.

    ``sources`` are the URIs of its scans in the BIDS dataset that it is derived from, if there is one.
    """

    volume: Path
    store: Path | None
    residuals: tuple[Path, ...]
    uncertainty: Path
    report: Path
    sources: tuple[str, ...] = ()

    @property
    def sidecar(self) -> Path:
        """The JSON beside the volume, written last: with it the result is whole."""
        return sidecar_of(self.volume)

    def files(self) -> Iterator[Path]:
        """Every file that may be written, but for those in the store."""
        yield from (self.volume, self.sidecar, self.report)
        for path in (*self.residuals, self.uncertainty):
            yield from (path, sidecar_of(path))

    def rivals(self) -> Iterator[Path]:
        """The volumes that would have the same sidecars: of the other ending, and a store that is none of these."""
        for path in (self.volume, *self.residuals, self.uncertainty):
            stem = image_stem(path.name)
            yield from (path.with_name(stem + ending) for ending in IMAGES if stem + ending != path.name)
        if self.store is None:
            yield self.volume.with_name(image_stem(self.volume.name) + _STORE)


def derivative_at(folder: str | os.PathLike[str], scan: str, grid: Grid, views: Sequence[str]) -> Result:
    """The paths in a folder of derivatives of the result of ``scan``, its path in its dataset (POSIX)."""
    parsed = parse_name(image_stem(Path(scan).name))
    if parsed is None:
        raise ValueError(f"{scan}: is not the BIDS name of a scan")
    subject, stem, suffix = parsed
    session = [part for part in stem.split("_") if part.startswith("ses-")]
    place = Path(folder, subject, *session, "anat")
    return Result(
        volume=place / f"{stem}_res-hi_desc-sr_{suffix}.nii.gz",
        store=place / f"{stem}_res-hi_desc-sr_{suffix}{_STORE}" if max(grid.shape) > MOST_OF_NIFTI else None,
        residuals=tuple(place / f"{stem}_desc-srresidual{view.capitalize()}_{suffix}.nii.gz" for view in views),
        uncertainty=place / f"{stem}_res-hi_desc-uncertainty_{suffix}.nii.gz",
        report=place / f"{stem}_desc-report_{suffix}.html",
        sources=tuple(raw_uris([scan])),
    )


def result_at(out: str | os.PathLike[str], grid: Grid, views: Sequence[str]) -> Result:
    """The paths of a result on a grid named ``out``, one residual for each of the scans' ``views``.

    Raises ValueError for a name that is none of a volume.
    """
    out = Path(out)
    ending = next((end for end in (_STORE, *IMAGES) if out.name.endswith(end) and out.name != end), None)
    if ending is None:
        raise ValueError(f"{out}: name the result X.nii.gz, or X.ome.zarr")
    if any("\ud800" <= letter <= "\udfff" for letter in out.name):
        raise ValueError(f"{out}: its name is no text in UTF-8, and its sidecar could not say it. Name it otherwise")
    stem = out.name.removesuffix(ending)
    large = ending == _STORE or max(grid.shape) > MOST_OF_NIFTI
    image = ending if ending in IMAGES else IMAGES[0]
    names = ["residual"] if len(views) == 1 else [f"residual-{view}" for view in views]
    return Result(
        volume=out.with_name(stem + image),
        store=out.with_name(stem + _STORE) if large else None,
        residuals=tuple(out.with_name(f"{stem}_{name}{image}") for name in names),
        uncertainty=out.with_name(f"{stem}_uncertainty{image}"),
        report=out.with_name(f"{stem}.html"),
    )
