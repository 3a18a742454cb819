"""One offline page on one result: scan and result side by side, what was added, what was measured, how sure it is."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from numpy.typing import NDArray

import headsr
from headsr.acquisition.measurement import Study, head_voxels
from headsr.evaluate.picture import NOTICE, PLANES, Head, Panel, Rows, cut, write_smallest
from headsr.files import temporary_folder, whole
from headsr.reconstruct.estimate import Estimate
from headsr.reconstruct.interpolate import average_of
from headsr.render.ours import GENERATOR
from headsr.volumes import Volume

if TYPE_CHECKING:
    from headsr.recipes import Method

_ADDED, _UNSURE = 0.2, 0.15  # the windows, of the brightest in the head
_BRIGHTEST = 98.0  # percentile
_OUTCOMES = {
    "agreed": "The result agreed with every scan within its noise before anything was done about it.",
    "met": "The result was made to agree with every scan within its noise.",
    "bounded": "The result was brought as near to the scans as their residuals justify, and does not agree with all of "
    "them yet. Are thickness and profile of the slices right, and did the head keep still?",
    "contradictory": "The scans contradict each other as much as the result contradicts them; it is as estimated.",
}


def write_page(
    path: str | os.PathLike[str], method: Method, study: Study, estimate: Estimate, record: Mapping[str, Any]
) -> None:
    """Write the page of a result (HTML, whole or not at all).

    ``estimate.volume`` is the result in normalised intensities, ``record`` what its sidecar says of it.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    title = f"{record['scans'][0]['file']}, super-resolved"
    text = environment.get_template("page.html.j2").render(
        title=title,
        generator=GENERATOR,
        notice=NOTICE,
        version=headsr.__version__,
        outside=record["outside_training"],
        picture=_picture(study, estimate, title),
        scan_columns=("Scan", "View", "Slices apart, mm", "Thick, mm", "Who says so", "Profile", "Noise, its units"),
        scans=[_scan_row(scan) for scan in record["scans"]],
        agreement=_OUTCOMES[record["consistency"]["outcome"]],
        residual_columns=("View", "Before, head", "After, head", "The noise allows"),
        residuals=[_residual_row(view, study.scale) for view in record["consistency"]["views"]],
        method=method.words(),
        details=_details(record),
    )
    with whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _scan_row(scan: Mapping[str, Any]) -> Sequence[str]:
    numbers = [f"{scan[key]:.4g}" for key in ("spacing_mm", "thickness_mm")]
    return [scan["file"], scan["view"], *numbers, scan["thickness_from"], scan["profile"], f"{scan['noise']:.4g}"]


def _residual_row(view: Mapping[str, Any], scale: float) -> Sequence[str]:
    return [view["view"], *(f"{view[key] * scale:.4g}" for key in ("rms_before", "rms_after", "allowed"))]


def _details(record: Mapping[str, Any]) -> list[str]:
    lines = [f"SHA-256 of {scan['file']}: {scan['sha256']}" for scan in record["scans"]]
    if "weights" in record:
        weights = record["weights"]
        lines.append(f"Weights {weights['name']}, SHA-256 {weights['sha256']}, license {weights['license']}")
    if record["zeroed_voxels"]:
        lines.append(f"{record['zeroed_voxels']:,} voxels lie where the scan was set to zero, and stay zero")
    if record["skull_stripped"]:
        lines.append("The scan shows the brain alone")
    return lines


def _picture(study: Study, estimate: Estimate, title: str) -> str:
    """The picture as a data URI."""
    head = cut(Volume(head_voxels(study.scans).cpu().numpy().astype(np.float32), study.head), study.head)
    smooth = average_of(study.scans[:1], study.head)
    added, unsure = estimate.volume - smooth, estimate.uncertainty
    high = float(np.percentile(smooth[head.inside], _BRIGHTEST))  # above it are fat and vessels
    rows: Rows = [(view, view, _panels(head, view, smooth, estimate.volume, added, unsure, high)) for view in PLANES]
    columns = ["scan, interpolated", "result", "added", *([] if unsure is None else ["unsure"])]
    foot = f"added ±{_ADDED:g}, unsure 0 to {_UNSURE:g}, of the brightest; the subject's right is on the right"
    with temporary_folder("page") as folder:
        drawn = folder / "picture.png"
        write_smallest(drawn, head, rows, columns, title=title, foot=foot)
        return f"data:image/png;base64,{base64.b64encode(drawn.read_bytes()).decode()}"


def _panels(
    head: Head,
    view: str,
    smooth: NDArray[np.float32],
    result: NDArray[np.float32],
    added: NDArray[np.float32],
    unsure: NDArray[np.float32] | None,
    high: float,
) -> list[Panel | None]:
    panels: list[Panel | None] = [Panel(head.plane(data, view), 0.0, high) for data in (smooth, result)]
    panels.append(Panel(head.plane(added, view), -_ADDED, _ADDED, "RdBu_r"))
    if unsure is not None:
        panels.append(Panel(head.plane(unsure, view), 0.0, _UNSURE, "inferno"))
    return panels
