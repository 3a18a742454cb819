"""A baseline that is trained against a discriminator, in turns."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from headsr.training.task import Setting
from headsr.training.tasks.baseline import BaselineTask


class AdversarialTask(BaselineTask):
    """Image losses and the discriminator's verdicts on the slices made; then the discriminator learns from both kinds.

    A loss on verdicts is given first what shall be judged real (losses.adversarial).
    """

    turns = ("network", "discriminator")

    def __init__(self, setting: Setting) -> None:
        super().__init__(setting)
        # Both turns of a step see the same batches: each is drawn once.
        self._batch = lru_cache(maxsize=setting.recipe.optimizer.accumulation)(setting.train.batch)

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
        pairs, judge = self._batch(step), networks["discriminator"]
        with torch.set_grad_enabled(turn == "network"):
            made = networks["network"](pairs.degraded)
        if turn == "discriminator":
            return self.setting.losses({"verdicts": (judge(pairs.clean), judge(made))})
        verdicts = judge(made), judge(pairs.clean)
        return self.setting.losses({"images": (made, pairs.clean), "verdicts": verdicts})
