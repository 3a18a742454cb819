"""Training of the 2-D baseline: degraded slices in, clean slices out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from headsr.devices import choose_device
from headsr.losses.composite import IMAGE_LOSSES, image_terms, refuse_unknown_terms
from headsr.losses.pixel import psnr
from headsr.networks.build import build_network
from headsr.recipes import Model
from headsr.stages import STAGE_VERSIONS
from headsr.training.pairs import Pairs, SlicePairs
from headsr.training.whole_run import Outputs, run_whole


@dataclass
class BaselineTask:
    """Image losses of the network on degraded crops; PSNR of the network and of its spline-interpolated input."""

    recipe: Model
    pairs: SlicePairs
    validation: Pairs

    def terms(self, module: nn.Module, step: int) -> dict[str, Tensor]:
        """Unweighted image losses of one batch."""
        pairs = self.pairs.batch(step)
        return image_terms(self.recipe.losses, module(pairs.degraded), pairs.clean)

    @torch.no_grad()
    def validate(self, module: nn.Module) -> dict[str, float]:
        """PSNR in dB (peak 1.0, whole crops) on fixed crops of the validation heads."""
        clean, degraded, _ = self.validation
        return {"val_psnr": psnr(module(degraded), clean), "val_psnr_spline": psnr(degraded, clean)}


def train_baseline(
    recipe: Model,
    index: str | os.PathLike[str],
    *,
    weights: str | os.PathLike[str],
    history: str | os.PathLike[str],
    recipe_copy: str | os.PathLike[str],
    scratch: str | os.PathLike[str],
) -> None:
    """Train a baseline of ``recipe`` on the training slices of ``index`` and write its averaged weights.

    ``history`` gets JSON lines, ``recipe_copy`` the recipe as YAML; ``scratch`` is a folder for the rolling state.
    """
    refuse_unknown_terms(recipe.losses, IMAGE_LOSSES)
    device = choose_device()
    pairs = SlicePairs(recipe, index, split="train", device=device)
    validation = SlicePairs(recipe, index, split="val", device=device).batch(0, 32)
    outputs = Outputs(Path(weights), Path(history), Path(recipe_copy), Path(scratch))
    task, stage = BaselineTask(recipe, pairs, validation), STAGE_VERSIONS["train_baseline"]
    torch.manual_seed(recipe.seed)
    module = build_network(recipe.kind, recipe.network).to(device)
    run_whole(task, module, recipe, index=index, stage=stage, outputs=outputs)
