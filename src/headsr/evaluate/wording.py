"""The words of a report: what ran and how, from the recipes alone, so that text and numbers cannot disagree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headsr.recipes import Degradation, Method, Model, Recipes, Table

PROJECTION = (
    "Every estimate is then projected onto its measurement: the nearest volume x + Aᵀu whose root mean square residual "
    "A x - y is at most each scan's noise, by conjugate gradients on A Aᵀ. A is the acquisition operator that also "
    "simulated the scans: separable, rows summing to one, on the cell-centred grid with an unchanged field of view."
)


def methods_text(recipes: Recipes, tables: Iterable[str]) -> list[str]:
    """One paragraph per degradation, method and model that the named tables use."""
    chosen = [recipes.tables[name] for name in tables]
    methods = _named(table.methods for table in chosen)
    degradations = _named(table.degradations for table in chosen)
    return [
        *(f"{name}: {_of_degradation(recipes.degradations[name])}" for name in degradations),
        *(f"{recipes.methods[name].title} ({name}): {_of_method(recipes.methods[name])}" for name in methods),
        PROJECTION,
        *(f"Model {name}: {_of_model(recipes.models[name])}" for name in models_of(recipes, chosen)),
    ]


def models_of(recipes: Recipes, tables: Iterable[Table]) -> list[str]:
    """The models that the tables' methods use, with the autoencoders below them."""
    methods = [recipes.methods[name] for name in _named(table.methods for table in tables)]
    used = [name for method in methods for name in (method.model, method.prior) if name]
    return sorted({*used, *(recipes.models[name].autoencoder for name in used if recipes.models[name].autoencoder)})


def seeds_of(recipes: Recipes, tables: Iterable[Table]) -> list[tuple[str, int]]:
    """Every seed that the tables depend on, by what draws from it."""
    tables = list(tables)
    seeds = [(f"degradation {n}", recipes.degradations[n].seed) for n in _named(t.degradations for t in tables)]
    seeds += [(f"model {name}", recipes.models[name].seed) for name in models_of(recipes, tables)]
    fits = {name: recipes.methods[name].fit for name in _named(table.methods for table in tables)}
    return seeds + [(f"fit {name}", fit.seed) for name, fit in fits.items() if fit is not None]


def _named(groups: Iterable[Sequence[str]]) -> list[str]:
    """Every name once, in the order of its first use."""
    return list(dict.fromkeys(name for group in groups for name in group))


def _of_degradation(degradation: Degradation) -> str:
    if degradation.kind == "acquired":
        return "the scan as it was acquired, with the slice thickness of its own sidecar; nothing is simulated."
    stacks = ", ".join(f"{s.view} x{s.factor:g} ({s.profile} profile)" for s in degradation.stacks)
    return (
        f"simulated thick slices: {stacks}; Rician noise of {degradation.noise_percent:g} % of the reference intensity "
        "(the 99.9th percentile inside the head mask)."
    )


def _of_method(method: Method) -> str:
    if method.kind == "spline":
        return "cubic B-spline interpolation of the first scan onto the head's grid."
    if method.kind == "average":
        return "the mean of the cubic B-spline interpolations of all scans."
    if method.kind == "tikhonov":
        return (
            f"least squares ||A x - y||² + {method.weight:g} ||∇x||² over all scans, each weighted by its noise, in "
            f"{method.iterations} conjugate-gradient steps from the fused average."
        )
    if method.kind == "slice_network":
        return f"the 2-D network {method.model} on the interpolated slices that cut across the thick direction."
    return _of_fit(method)


def _of_fit(method: Method) -> str:
    fit = method.fit
    text = (
        f"an implicit neural representation fitted to all scans through A in {fit.steps} steps, learning rate "
        f"{fit.learning_rate:g}, smoothness weight {fit.smoothness:g}"
    )
    if not method.prior:
        return f"{text}; data term alone."
    return (
        f"{text}; the frozen latent diffusion model {method.prior} as a prior of weight {fit.prior_weight:g} on "
        f"{fit.prior_slices} slices every {fit.prior_every} steps, after {fit.prior_from:.0%} of them."
    )


def _of_model(model: Model) -> str:
    budget = model.budget
    return (
        f"{model.kind}, trained on {', '.join(model.suffixes)} slices in {budget.segments} x {budget.steps} steps of "
        f"{budget.batch} crops of {budget.crop} pixels, learning rate {model.learning_rate:g}, precision "
        f"{model.precision}, averaged with decay {model.ema_decay:g}."
    )
