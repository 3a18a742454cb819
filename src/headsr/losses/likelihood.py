"""How likely an error is under the spread that a network foretold."""

from __future__ import annotations

from torch import Tensor


def laplace_loss(log_spread: Tensor, error: Tensor) -> Tensor:
    """Mean negative log-likelihood of errors under Laplace distributions of scale b = exp(log_spread), in fp32.

    log 2b + |error| / b without the constant (Kendall and Gal 2017, section 3.2).
    """
    log_spread, error = log_spread.float(), error.float()
    return (log_spread + error.abs() * (-log_spread).exp()).mean()
