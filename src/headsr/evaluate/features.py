"""The features of a volume's slices, beside those of its truth: what set metrics compare."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headsr.devices import choose_device
from headsr.evaluate.score import aligned, normalised
from headsr.networks.slice_encoder import SliceEncoder
from headsr.preprocess.sidecar import read_intensities
from headsr.slices.extract import LAYOUT, slices_of
from headsr.volumes import Volume, load_volume
from headsr.weights import load_model, save_tensors

TRUTH = "truth"
_AT_ONCE = 16


def score_features(
    volumes: Mapping[str, str | os.PathLike[str]],
    truth: str | os.PathLike[str],
    head_mask: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str],
) -> None:
    """Write the features of all slices that show head, of the ``volumes`` of one head and of their truth.

    ``volumes`` (variant to NIfTI in scan units) lie on the grid of the truth, which holds normalised intensities.
    ``output`` has a tensor (N, D) for every variant and plane, named ``unprojected.axial``, and for ``truth.axial``
    ...; slice i of a plane is the same place in all of them. ``weights`` are those of a slice encoder.
    Raises ValueError when a file lies on another grid than the truth.
    """
    reference, units, device = load_volume(truth), read_intensities(truth), choose_device()
    head = aligned(head_mask, reference, truth, constant=True).data > 0.5
    encoder = load_model(weights, device=device).module
    tensors = {}
    for of, path in {**volumes, TRUTH: None}.items():
        data = reference.data if path is None else normalised(aligned(path, reference, truth), units)
        for plane in LAYOUT:
            slices = slices_of(Volume(data, reference.grid), head, plane)
            tensors[feature_name(of, plane)] = embedded(encoder, slices, device)
    save_tensors(output, tensors, {"source_key": units.source_key})


def feature_name(of: str, plane: str) -> str:
    """The name of the features of one plane's slices in a variant, or in the truth."""
    return f"{of}.{plane}"


@torch.no_grad()
def embedded(encoder: SliceEncoder, slices: NDArray[np.float32], device: torch.device) -> Tensor:
    """The features (N, D) of slices (N, H, W), in fp32 on the CPU."""
    batches = torch.from_numpy(slices)[:, None].split(_AT_ONCE)
    return torch.cat([encoder.embedding(batch.to(device)).cpu() for batch in batches])
