"""The words of a report: what ran and how, from the recipes alone, so that text and numbers cannot disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headsr.models.card import Card
from headsr.recipes import Degradation, Model, Recipes, Shipped, Stack

PROJECTION = (
    "Every estimate is then projected onto its measurement: the nearest volume x + Aᵀu whose root mean square residual "
    "A x - y is at most each scan's noise, by conjugate gradients on A Aᵀ. A is the acquisition operator that also "
    "simulated the scans: separable, rows summing to one, on the cell-centred grid with an unchanged field of view."
)


def methods_text(recipes: Recipes, tables: Iterable[str]) -> list[str]:
    """One paragraph per degradation, method and model that the named tables use."""
    tables = list(tables)
    chosen = [recipes.tables[name] for name in tables]
    methods = _named(table.methods for table in chosen)
    degradations = _named(table.degradations for table in chosen)
    return [
        *(f"{name}: {_of_degradation(recipes.degradations[name])}" for name in degradations),
        *(f"{recipes.methods[name].title or name} ({name}): {recipes.methods[name].words()}" for name in methods),
        PROJECTION,
        *(f"Model {name}: {_of_model(recipes.models[name])}" for name in models_of(recipes, tables)),
    ]


def models_of(recipes: Recipes, tables: Iterable[str]) -> list[str]:
    """The models that the tables' methods use, with all that these need."""
    return sorted(recipes.used_by("tables", tables)["models"])


def seeds_of(recipes: Recipes, tables: Iterable[str]) -> list[tuple[str, int]]:
    """Every seed that the tables depend on, by what draws from it."""
    used = recipes.used_by("tables", tables)
    fits = {name: getattr(recipes.methods[name], "fit", None) for name in sorted(used["methods"])}
    return [
        *((f"degradation {name}", recipes.degradations[name].seed) for name in sorted(used["degradations"])),
        *(
            (f"model {name}", seed)
            for name in sorted(used["models"])
            if (seed := recipes.models[name].seed) is not None
        ),
        *((f"fit {name}", fit.seed) for name, fit in fits.items() if fit is not None),
    ]


def _named(groups: Iterable[Sequence[str]]) -> list[str]:
    """Every name once, in the order of its first use."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _of_degradation(degradation: Degradation) -> str:
    if degradation.kind == "acquired":
        return "the scan as it was acquired, with the slice thickness of its own sidecar; nothing is simulated."
    stacks = ", ".join(f"{s.view} x{_factor(s)} ({s.profile} profile)" for s in degradation.stacks)
    return (
        f"simulated thick slices: {stacks}; Rician noise of {degradation.noise_percent:g} % of the reference intensity "
        "(the 99.9th percentile inside the head mask)."
    )


def _factor(stack: Stack) -> str:
    """How coarse a scan is: one number, or one along each axis."""
    return f"{stack.factor:g}" if stack.factors is None else " x ".join(f"{factor:g}" for factor in stack.factors)


def _of_model(model: Model | Shipped) -> str:
    if isinstance(model, Shipped):
        return _of_shipped(model.name, model.card)
    budget = model.budget
    return (
        f"{model.kind}, network {model.network['architecture']}, trained on {model.data.words} in "
        f"{budget.segments} x {budget.steps} steps of {budget.batch}, learning rate "
        f"{model.optimizer.learning_rate:g} ({model.schedule.shape}), precision {model.precision}, averaged with decay "
        f"{model.ema_decay:g}."
    )


def _of_shipped(name: str, card: Card) -> str:
    said = f"{card.kind}, network {', '.join(card.architectures)}, not trained here: the weights"
    if card.imported:
        file = f"{card.imported['file']} (SHA-256 {card.imported['sha256'][:12]}...)"
        return f"{said} {name}, imported from {file}, {card.imported['layout']}; trained on: {card.trained_on}."
    return (
        f"{said} that ship as {name} (SHA-256 {card.sha256[:12]}...), trained on {card.trained_on} in {card.steps} "
        "steps."
    )
