"""A baseline that is trained against a discriminator, in turns."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from headsr.training.tasks.baseline import BaselineTask


class AdversarialTask(BaselineTask):
    """Image losses and the discriminator's verdicts on the slices made; then the discriminator learns from both kinds.

    A loss on verdicts is given first what shall be judged real (losses.adversarial).
    """

    turns = ("network", "discriminator")

    def networks(self) -> dict[str, nn.Module]:
        """Generator and discriminator."""
        return {
            **super().networks(),
            "discriminator": self.setting.build(self.setting.recipe.discriminator, "discriminator"),
        }

    def begin(self, networks: Mapping[str, nn.Module]) -> None:
        """The generator starts from the weights of the baseline that the recipe names, if it does."""
        if name := self.setting.recipe.generator:
            networks["network"].load_state_dict(self.setting.companions[name].module.state_dict())

    def terms(self, turn: str, networks: Mapping[str, nn.Module], step: int) -> dict[str, Tensor]:
        """Losses of one batch; only the network whose turn it is has gradients."""
        pairs = self.setting.batch(step)
        with torch.set_grad_enabled(turn == "network"):
            made = networks["network"](pairs.degraded)
        return self.setting.losses(judged(turn, networks["discriminator"], made, pairs.clean))


def judged(turn: str, judge: nn.Module, made: Tensor, true: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """What losses compare in a turn of a network and its discriminator ``judge``, of the images made and the true ones.

    The first of two verdicts is on what shall be judged real: what was made, and in the discriminator's turn the truth.
    """
    if turn == "discriminator":
        return {"verdicts": (judge(true), judge(made))}
    return {"images": (made, true), "verdicts": (judge(made), judge(true))}
