"""Which files a configuration asks for: pure functions from scans and recipes to lists of paths. Standard library only.

A path here and the output of the rule that makes it are the same text; tests/workflow/test_dag.py holds them together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from headsr.files import head_mask_of, sidecar_of
from headsr.labelmaps import PinnedMap
from headsr.parts import METRICS
from headsr.scans import Scan, parse_companion

if TYPE_CHECKING:
    from headsr.recipes import Column, Method, Model, Recipes, Table

Companions = Mapping[str, Mapping[str, Scan]]  # of every scan, by its name and their kind
Measures = Mapping[str, list[str]]  # every metric, and the masks that it is measured in
_MASKS = ("head", "brain")  # those that every scan has; its companions bring others


@dataclass(frozen=True, order=True)
class Unit:
    """One volume to make: a method on a degradation of a scan."""

    method: str
    degradation: str
    scan: Scan


@dataclass(frozen=True, order=True)
class SliceSet:
    """The slices of a method's volumes in one table, compared with those of their truths: of one suffix, '' of all."""

    table: str
    method: str
    degradation: str
    suffix: str = ""


def scans_of(table: Table, scans: Sequence[Scan]) -> list[Scan]:
    """The scans that a table is about: its split, suffixes and datasets, and of these the scans that it names."""
    datasets = table.datasets or {scan.dataset for scan in scans}
    chosen = [
        scan
        for scan in scans
        if scan.suffix in table.suffixes and scan.split == table.split and scan.dataset in datasets
    ]
    if table.scans:
        names = {scan.name: scan for scan in chosen}
        missing = [name for name in table.scans if name not in names]
        if missing:
            places = "its split, suffixes and datasets"
            raise ValueError(f"the table {table.title!r} names scans that are not in {places}: {', '.join(missing)}")
        chosen = [names[name] for name in table.scans]
    return chosen


def studies(scans: Iterable[Scan]) -> dict[Scan, list[Scan]]:
    """For every scan the scans of its head, session and contrast, by name: what a degradation ``together`` aligns.

    They may differ in their acq- and run- labels. Another ce- or echo- label is another contrast, another rec- or part-
    label the same measurement once more, and another chunk- label another piece of the head.
    """
    together: dict[tuple[str, ...], list[Scan]] = {}
    for scan in sorted(scans, key=lambda scan: scan.name):
        same = [part for part in scan.scan.split("_") if not part.startswith(("acq-", "run-"))]
        together.setdefault((scan.dataset, scan.split, scan.suffix, *same), []).append(scan)
    return {scan: study for study in together.values() for scan in study}


def units_of(table: Table, recipes: Recipes, scans: Sequence[Scan]) -> list[Unit]:
    """Every volume that a table compares; of scans taken together there is one, on the first of them.

    ValueError where two that are taken together are one measurement.
    """
    study_of = studies(scans)
    if any(recipes.degradations[degradation].together for degradation in table.degradations):
        for scan in scans_of(table, scans):
            _refuse_copies(study_of[scan])
    first = {study[0] for study in study_of.values()}
    return [
        Unit(method, degradation, scan)
        for degradation in table.degradations
        for scan in scans_of(table, scans)
        for method in table.methods
        if scan in first or not recipes.degradations[degradation].together
    ]


def _refuse_copies(study: Sequence[Scan]) -> None:
    """A measurement that is there twice would count as two, and what is made of it look surer than it is."""
    known: dict[str, Scan] = {}
    for scan in study:
        first = known.setdefault(scan.key, scan)
        if first is not scan:
            raise ValueError(
                f"{first.name} and {scan.name} have one content and would be taken together as two measurements. "
                f"Set the split of {scan.name} to unused in the table of scans"
            )


def all_units(names: Iterable[str], recipes: Recipes, scans: Sequence[Scan]) -> list[Unit]:
    """Every volume of the named tables, each once. ValueError for a table that no scan is for."""
    units: set[Unit] = set()
    for name in names:
        found = units_of(recipes.tables[name], recipes, scans)
        if not found:
            raise ValueError(f"the table {name!r} is about no scan: {_why_none(recipes.tables[name], scans)}")
        units.update(found)
    return sorted(units, key=_unit_key)


def _why_none(table: Table, scans: Sequence[Scan]) -> str:
    """What the scan table has instead of what a table asks for."""
    asked = f"suffixes {', '.join(table.suffixes)}, split {table.split!r}"
    asked += f", datasets {', '.join(table.datasets)}" if table.datasets else ""
    return _what_there_is(asked, scans)


def _what_there_is(asked: str, scans: Sequence[Scan]) -> str:
    there = sorted({f"{scan.dataset} {scan.suffix} {scan.split}" for scan in scans})
    return f"it asks for {asked}; the scan table has {'; '.join(there) or 'no row'}. Change one of the two"


def units_of_heads(units: Iterable[Unit], tables: Iterable[Table]) -> dict[tuple[Scan, str], list[Unit]]:
    """Every volume of each head under each degradation, in the order of the tables."""
    order = {method: None for table in tables for method in table.methods}
    place = {method: index for index, method in enumerate(order)}
    heads: dict[tuple[Scan, str], list[Unit]] = {}
    for unit in sorted(units, key=lambda unit: place[unit.method]):
        heads.setdefault((unit.scan, unit.degradation), []).append(unit)
    return heads


def companions(pins: Iterable[Scan]) -> Companions:
    """The companions of every scan that are used, by the scan's name and their kind."""
    found: dict[str, dict[str, Scan]] = {}
    for pin in pins:
        if pin.of and pin.split != "unused":
            _, kind = parse_companion(f"{pin.scan}_{pin.suffix}")
            found.setdefault(pin.of, {})[kind] = pin
    return found


def measured(
    tables: Iterable[Table], recipes: Recipes, scans: Sequence[Scan], companions: Companions
) -> dict[Unit, dict[str, Measures]]:
    """What is measured of every volume whose truth is known (those of simulated scans), by the family of metrics.

    It is what the tables that hold the volume show or expect, in the masks that its scan has.
    """
    asked: dict[Unit, frozenset[Column]] = {}
    for table in tables:
        columns = table.measures
        for unit in units_of(table, recipes, scans):
            if recipes.degradations[unit.degradation].kind == "simulated":
                asked[unit] = columns if (more := asked.get(unit)) is None else columns | more
    return {
        unit: found
        for unit in sorted(asked, key=_unit_key)
        if (found := _by_family(asked[unit], tuple(companions.get(unit.scan.name, ()))))
    }


@lru_cache  # most of many thousand volumes are measured alike
def _by_family(columns: frozenset[Column], companions: tuple[str, ...]) -> dict[str, Measures]:
    families: dict[str, dict[str, list[str]]] = {}
    for column in sorted(columns, key=lambda column: (column.metric, column.mask)):
        if column.mask in (*_MASKS, *companions):
            family = families.setdefault(METRICS[column.metric].family, {})
            family.setdefault(column.metric, []).append(column.mask)
    return families


def slice_sets(
    tables: Mapping[str, Table], recipes: Recipes, scans: Sequence[Scan]
) -> dict[SliceSet, tuple[Measures, list[Unit]]]:
    """What is measured of every set of slices whose truth is known, and the volumes that they are of."""
    found: dict[SliceSet, tuple[Measures, list[Unit]]] = {}
    for name, table in tables.items():
        measures: dict[str, list[str]] = {}
        for column in sorted(table.measures, key=lambda column: (column.metric, column.mask)):
            if column.of_sets:
                measures.setdefault(column.metric, []).append(column.mask)
        for unit in units_of(table, recipes, scans) if measures else ():
            if recipes.degradations[unit.degradation].kind == "simulated":
                for suffix in {"", unit.scan.suffix} if len(table.suffixes) > 1 else {""}:
                    key = SliceSet(name, unit.method, unit.degradation, suffix)
                    found.setdefault(key, (measures, []))[1].append(unit)
    return found


def models_of(tables: Iterable[str], recipes: Recipes) -> list[str]:
    """The trained models that tables need, for their volumes or their measures, with all that these need."""
    return sorted(recipes.used_by("tables", tables)["models"])


def trained(models: Iterable[str], recipes: Recipes) -> list[str]:
    """Those of the models that are trained here; the weights of the others ship in the package."""
    return [name for name in models if recipes.models[name].kind != "shipped"]


def training_scans(scans: Iterable[Scan], model: Model) -> list[Scan]:
    """The scans that a model is trained on or validated by; none of one that learns from label maps."""
    data = model.data
    return [
        scan
        for scan in scans
        if data.drawn_from == "scans"
        and scan.split in ("train", "val")
        and scan.suffix in data.suffixes
        and (not data.datasets or scan.dataset in data.datasets)
    ]


def training_maps(maps: Iterable[PinnedMap], model: Model) -> list[PinnedMap]:
    """The label maps that a model is trained on or validated by; none of one that learns from scans."""
    data = model.data
    drawn = data.datasets if data.drawn_from == "labelmaps" else ()
    return [one for one in maps if one.split in ("train", "val") and one.dataset in drawn]


def origins_of(
    name: str, recipes: Recipes, scans: Iterable[Scan], maps: Iterable[PinnedMap]
) -> dict[str, dict[str, str]]:
    """The datasets that a model learns from: version, license and citation of each, by its name."""
    model = recipes.models[name]
    names = {one.dataset for one in (*training_scans(scans, model), *training_maps(maps, model))}
    said = ("version", "license", "citation")
    return {one: {key: getattr(recipes.datasets[one], key) for key in said} for one in sorted(names)}


def refuse_models_without_data(
    names: Iterable[str], recipes: Recipes, scans: Sequence[Scan], maps: Sequence[PinnedMap]
) -> None:
    """ValueError for a model that has nothing to be trained on, or nothing to be validated by."""
    for name in names:
        model = recipes.models[name]
        for dataset in model.data.datasets if model.data.drawn_from == "labelmaps" else ():
            if all(one.dataset != dataset for one in maps):
                raise ValueError(f"the model {name!r} learns from {dataset}, which is not pinned: headsr pin {dataset}")
        for split in ("train", "val"):
            if all(one.split != split for one in (*training_scans(scans, model), *training_maps(maps, model))):
                raise ValueError(f"the model {name!r} has {_why_none_of(split, model, scans)}")


def _why_none_of(split: str, model: Model, scans: Sequence[Scan]) -> str:
    """What a model lacks to be trained or validated, and what there is instead."""
    if model.data.drawn_from == "labelmaps":
        datasets = ", ".join(model.data.datasets)
        return f"no label map of split {split!r}: those of {datasets} are of others. Change splits in their table"
    asked = f"suffixes {', '.join(model.data.suffixes)}, datasets {', '.join(model.data.datasets) or 'all'}"
    return f"no scan of split {split!r}: {_what_there_is(asked, scans)}"


def views_of(degradation: str, recipes: Recipes, study: Sequence[Scan]) -> list[str]:
    """The low-resolution scans of a head: its stacks' views, or the acquired scan and those of its study after it."""
    recipe = recipes.degradations[degradation]
    if recipe.kind == "simulated":
        return [stack.view for stack in recipe.stacks]
    return ["acquired", *(f"acquired{number}" for number in range(2, len(study) + 1) if recipe.together)]


def preprocessed(results: str, scan: Scan, ending: str = "nii.gz") -> str:
    """The preprocessed scan, or its sidecar."""
    return f"{results}/preprocessed/{scan.stem}_desc-preproc_{scan.suffix}.{ending}"


def mask(results: str, scan: Scan, label: str) -> str:
    """The head, brain or lesion mask of a scan on its preprocessed volume's grid."""
    return f"{results}/preprocessed/{scan.stem}_label-{label}_desc-{scan.suffix}_mask.nii.gz"


def slices(results: str, scan: Scan) -> str:
    """The store of a scan's slices, by its commit mark."""
    return f"{results}/slices/{scan.stem}_{scan.suffix}.zarr/zarr.json"


def anatomy(results: str, label_map: PinnedMap) -> str:
    """What is made of a label map, to be painted."""
    return f"{results}/anatomies/{label_map.name}.safetensors"


def lowres(results: str, degradation: str, scan: Scan, views: Iterable[str]) -> list[str]:
    """The low-resolution scans of one head."""
    return [f"{results}/lowres/{degradation}/{scan.stem}_desc-{view}_{scan.suffix}.nii.gz" for view in views]


def beside_lowres(paths: Iterable[str]) -> list[str]:
    """The sidecar and the head mask of each low-resolution scan."""
    return [str(beside) for path in paths for beside in (sidecar_of(path), head_mask_of(path))]


def derivatives(results: str, unit: Unit) -> str:
    """The BIDS derivatives dataset that a volume belongs to."""
    return f"{results}/reconstructions/{unit.scan.dataset}/headsr-{unit.method}-{unit.degradation}"


def descriptions(results: str, units: Iterable[Unit]) -> list[str]:
    """What makes each folder of volumes a BIDS dataset; it follows from the release of the scans, no volume does."""
    names = "dataset_description.json", "descriptions.tsv", ".bidsignore"
    return sorted({f"{derivatives(results, unit)}/{name}" for unit in units for name in names})


def volume(results: str, unit: Unit, desc: str, ending: str, resolution: str = "res-hi_") -> str:
    """One file of a reconstruction, for example ``desc="sr", ending="nii.gz"``."""
    scan = unit.scan
    return f"{derivatives(results, unit)}/{scan.folder}/anat/{scan.scan}_{resolution}desc-{desc}_{scan.suffix}.{ending}"


def volumes(results: str, units: Iterable[Unit], recipes: Recipes, larger: Sequence[str]) -> list[str]:
    """All that is published of every volume, so that what is deleted of it is made again; ``larger`` are res- labels.

    The residual maps are left out: which there are, the check of the volume says (``lost_maps``).
    """
    return [path for unit in units for path in _files_of_volume(results, unit, recipes.methods[unit.method], larger)]


def _files_of_volume(results: str, unit: Unit, method: Method, larger: Sequence[str]) -> Iterator[str]:
    yield check(results, unit)
    foretold = ["uncertainty"] if method.foretells else []
    for label in ("unprojected", *foretold):
        for ending in ("nii.gz", "json"):
            yield volume(results, unit, label, ending)
    fitted = method.makes == "field"
    if fitted:
        yield volume(results, unit, "field", "safetensors", resolution="")
        yield volume(results, unit, "fit", "jsonl", resolution="")
    for label in ("hi", *(larger if fitted else ())):
        for ending in ("ome.zarr/zarr.json", "nii.gz", "json"):
            yield volume(results, unit, "sr", ending, f"res-{label}_")


def check(results: str, unit: Unit) -> str:
    """The record that a volume is whole and agrees with its scan."""
    return volume(results, unit, "check", "json", resolution="")


def score(results: str, unit: Unit, family: str) -> str:
    """The scores of one volume by one family of metrics."""
    return f"{results}/scores/{family}/{_path_of(unit)}.json"


def features(results: str, encoder: str, unit: Unit) -> str:
    """The features of a volume's slices, by the encoder of a table."""
    return f"{results}/features/{encoder}/{_path_of(unit)}.safetensors"


def set_score(results: str, slices: SliceSet) -> str:
    """The scores of one set of slices."""
    return f"{results}/scores/set/{slices.table}/{slices.method}/{slices.degradation}/{slices.suffix or 'all'}.json"


def scores(results: str, measured: Mapping[Unit, Mapping[str, Measures]], sets: Iterable[SliceSet] = ()) -> list[str]:
    """The scores of every volume by every family of metrics, and of every set of slices."""
    of_volumes = [score(results, unit, family) for unit, families in measured.items() for family in families]
    return [*of_volumes, *(set_score(results, one) for one in sorted(sets))]


def figures(results: str, units: Iterable[Unit]) -> list[str]:
    """One comparison per head and degradation."""
    pairs = {(unit.degradation, unit.scan) for unit in units}
    return [
        f"{results}/figures/{degradation}/{scan.stem}_{scan.suffix}.png"
        for degradation, scan in sorted(pairs, key=_figure_key)
    ]


def captions(units: Iterable[Unit]) -> list[str]:
    """What each picture of ``figures`` shows, in the same order."""
    pairs = {(unit.degradation, unit.scan) for unit in units}
    return [f"{scan.name}, {degradation}" for degradation, scan in sorted(pairs, key=_figure_key)]


def masks_figures(results: str, units: Iterable[Unit], recipes: Recipes, scans: Iterable[Scan]) -> dict[str, str]:
    """The picture of the masks of every scan that volumes are made from, by the scan's name."""
    study_of, used = studies(scans), {unit.scan for unit in units}
    used |= {s for unit in units if recipes.degradations[unit.degradation].together for s in study_of[unit.scan]}
    scans = sorted(used, key=lambda scan: scan.name)
    return {scan.name: f"{results}/figures/{scan.stem}_desc-masks_{scan.suffix}.png" for scan in scans}


def histories(results: str, models: Iterable[str], units: Sequence[Unit], recipes: Recipes) -> Mapping[str, str]:
    """The history of every training and fit, by the name of what was trained; of shipped weights it is their card's."""
    of_models = {name: f"{results}/models/{name}/history.jsonl" for name in models}
    fits = {
        f"{unit.method} {unit.degradation} {unit.scan.name}": volume(results, unit, "fit", "jsonl", resolution="")
        for unit in units
        if recipes.methods[unit.method].makes == "field"
    }
    return {**of_models, **fits}


def histories_so_far(
    results: str, models: Iterable[str], units: Sequence[Unit], recipes: Recipes
) -> dict[str, list[str]]:
    """Where every history lies while its training or fit may still be running: the files that make it up, in order."""
    parts = {
        name: [*(f"segment-{segment}" for segment in range(recipes.models[name].budget.segments)), "rolling"]
        for name in trained(models, recipes)
    }
    return {
        name: [f"{results}/models/{name}/{part}.jsonl" for part in parts[name]] if name in parts else [path]
        for name, path in histories(results, models, units, recipes).items()
    }


def recipes_of_training(models: Iterable[str], units: Sequence[Unit], recipes: Recipes) -> dict[str, Any]:
    """The recipe of every training and fit, by the name of what is trained."""
    of_models = {name: recipes.models[name] for name in models}
    return {**of_models, **{f"{u.method} {u.degradation} {u.scan.name}": recipes.methods[u.method] for u in units}}


def keys_of_training(
    models: Iterable[str], units: Sequence[Unit], recipes: Recipes, scans: Sequence[Scan], maps: Sequence[PinnedMap]
) -> dict[str, list[str]]:
    """The content keys that every training and fit sees, by the name of what is trained here."""
    return {
        **{name: _keys_of_model(recipes.models[name], scans, maps) for name in trained(models, recipes)},
        **{f"{unit.method} {unit.degradation} {unit.scan.name}": [unit.scan.key] for unit in units},
    }


def _keys_of_model(model: Model, scans: Sequence[Scan], maps: Sequence[PinnedMap]) -> list[str]:
    return [one.key for one in (*training_scans(scans, model), *training_maps(maps, model))]


def _path_of(unit: Unit) -> str:
    """A volume within a folder of files about volumes."""
    return f"{unit.method}/{unit.degradation}/{unit.scan.stem}_{unit.scan.suffix}"


def _unit_key(unit: Unit) -> tuple[str, str, str, str]:
    return unit.degradation, unit.scan.dataset, unit.scan.path, unit.method


def _figure_key(pair: tuple[str, Scan]) -> tuple[str, str, str]:
    degradation, scan = pair
    return degradation, scan.dataset, scan.path
