# What the configuration says, and the look-ups that the workflow shares. Parsed again in every cluster job: no heavy imports.
import gc
import hashlib
from pathlib import Path

from headsr import targets
from headsr.evaluate.checked import lost_maps
from headsr.files import unwritable
from headsr.labelmaps import FILE_PATTERN, SUBJECT_PATTERN, read_maps, synthseg_labels
from headsr.lock import HeldError, hold_results
from headsr.parts import METRICS
from headsr.provenance import commit_at
from headsr.recipes import (
    VIEWS,
    RecipeError,
    architectures_of,
    check_config,
    config_files,
    load_recipes,
    parts_of_method,
    parts_of_model,
    plain,
    stated,
    stated_in,
    tracked,
    versions,
    write_out_paths,
)
from headsr.scans import (
    DATASET_PATTERN,
    FOLDER_PATTERN,
    PINNED_PATTERN,
    SCAN_PATTERN,
    SUFFIXES,
    copies_in_splits,
    other_splits,
    read_pins,
)
from headsr.training.tracking import failed_mirrors
from snakemake.exceptions import WorkflowError
from snakemake.logging import logger

# Planning makes millions of objects that live to its end. Looking for garbage among them again and again takes a quarter
# of the time for 1,000 subjects (benchmarks/plan.py).
gc.set_threshold(100_000, 50, 100)

CONFIG_FILES = config_files(workflow.overwrite_configfiles)
try:
    check_config(config, ", ".join(CONFIG_FILES))
    write_out_paths(config, ", ".join(CONFIG_FILES))
    RECIPES = load_recipes(config, CONFIG_FILES)
    PINS = read_pins(config["scans"])
    SCANS = [pin for pin in PINS if not pin.of]
    MAPS = read_maps(config["labelmaps"])
    UNITS = targets.all_units(config["tables"], RECIPES, SCANS)
    TABLES = {name: RECIPES.tables[name] for name in config["tables"]}
    MODELS = targets.models_of(TABLES, RECIPES)
    COMPANIONS = targets.companions(PINS)
    targets.refuse_models_without_data(targets.trained(MODELS, RECIPES), RECIPES, SCANS, MAPS)
except ValueError as error:
    raise WorkflowError(str(error)) from None

RESULTS = config["results"]
MODEL_CHECKS = [f"{RESULTS}/models/{name}/check.json" for name in targets.trained(MODELS, RECIPES)]
# Whether a table uses them or not.
TRAINED = targets.trained(RECIPES.models, RECIPES)
SHIPPED = [name for name in RECIPES.models if name not in TRAINED]
MEASURED = targets.measured(TABLES.values(), RECIPES, SCANS, COMPANIONS)
SETS = targets.slice_sets(TABLES, RECIPES, SCANS)
PARTS_OF_METHOD = {name: parts_of_method(method, RECIPES) for name, method in RECIPES.methods.items()}
MODELS_OF_METHOD = {name: RECIPES.models_of("methods", name) for name in RECIPES.methods}
SCAN_OF = {(scan.stem, scan.suffix): scan for scan in SCANS}
PIN_OF = {**{f"{pin.stem}_{pin.suffix}": pin for pin in PINS}, **{one.place: one for one in MAPS}}
MAP_OF = {one.name: one for one in MAPS}
STUDIES = targets.studies(SCANS)
MASKS_FIGURES = targets.masks_figures(RESULTS, UNITS, RECIPES, SCANS)
UNITS_OF_HEAD = targets.units_of_heads(UNITS, TABLES.values())


def one_of(names):
    """A wildcard constraint: one of these names, or nothing at all when there is none."""
    return "|".join(sorted(names, key=len, reverse=True)) or r"(?!)"


def hold_results_of_run():
    """Keep other runs out of the results folder until this process ends; WorkflowError where that cannot be."""
    try:
        hold_results(RESULTS)
    except (HeldError, OSError) as error:
        raise WorkflowError(str(unwritable(error, RESULTS) or error)) from None


def say_where_the_report_is():
    """The last line of a run that had a report to write."""
    if any(job.rule.name == "write_report" for job in workflow.dag.jobs):
        logger.info(f"The report is {RESULTS}/report/report.html", extra={"for_people": True})


def say_odd_splits():
    """Warn of people whose split is another than their dataset's recipe says, and of one content in several splits."""
    for name, dataset in RECIPES.datasets.items():
        for line in other_splits(name, dataset.splits, [*SCANS, *MAPS]):
            logger.warning(line)
    for line in [*copies_in_splits(SCANS), *copies_in_splits(MAPS)]:
        logger.warning(line)


if workflow.is_main_process:  # not each process that a job is in
    say_odd_splits()


def scan_of(wildcards):
    """The row of the scan table that a job is about."""
    return SCAN_OF[f"{wildcards.dataset}/{wildcards.folder}/{wildcards.scan}", wildcards.suffix]


def pin_of(wildcards):
    """The row of a fetched file in its table: a scan, a companion or a label map."""
    return PIN_OF[f"{wildcards.dataset}/{wildcards.folder}/{wildcards.file}"]


def key_of(wildcards):
    return scan_of(wildcards).key


def recipe_of(part):
    """A params function: what decides results in the recipe of the wildcard of that name, as plain data."""
    singular = part.rstrip("s")
    recipes = tracked(getattr(RECIPES, part))

    def lookup(wildcards):
        return recipes[getattr(wildcards, singular)]

    return lookup


def lowres_of(wildcards):
    """The low-resolution scans that a volume is made from."""
    return targets.lowres(
        RESULTS,
        wildcards.degradation,
        scan_of(wildcards),
        targets.views_of(wildcards.degradation, RECIPES, STUDIES[scan_of(wildcards)]),
    )


def beside_lowres_of(wildcards):
    """What stands beside these scans and is read with them: how each was made, and where it sees the head."""
    return targets.beside_lowres(lowres_of(wildcards))


def larger_grid(wildcards):
    """How a larger volume is rendered; nothing for the one on the head's own grid, which is compared with the scans."""
    larger = plain(config["render"]["larger"].get(wildcards.grid, {}))
    return {key: value for key, value in larger.items() if key != "runtime_min"}  # how long it may take changes no byte


def compared_with(wildcards):
    """The scans that a render is compared with: on the head's own grid it is the projected volume, which was."""
    return lowres_of(wildcards) if wildcards.grid in config["render"]["larger"] else []


def render_minutes(wildcards):
    """How long a render may take: what the configuration says of a larger volume, else two hours."""
    return config["render"]["larger"].get(wildcards.grid, {}).get("runtime_min", 120)


def moving_of(wildcards):
    """The scan that an aligned one was made from: the study's scan of that number."""
    return STUDIES[scan_of(wildcards)][int(wildcards.number) - 1]


def lowres_of_moving(ending):
    """An input function: the scan that is to be aligned, as it was acquired, its sidecar or its head mask."""

    def path(wildcards):
        start = f"{RESULTS}/lowres/{wildcards.degradation}/{moving_of(wildcards).stem}"
        return f"{start}_{ending.format(suffix=wildcards.suffix)}"

    return path


def memory(base, bytes_per_voxel=0):
    """Memory in MB: ``base`` and so much per voxel (a compressed scan holds about a byte of each), more with every attempt."""

    def megabytes(wildcards, attempt):
        voxels = scan_of(wildcards).bytes if bytes_per_voxel else 0
        return int((base + voxels * bytes_per_voxel / 1e6) * attempt)

    return megabytes


def memory_of_render(wildcards, attempt):
    """Memory in MB: for the field, and where a volume is compared with its scans, for their operators."""
    return memory(1500, 120 if compared_with(wildcards) else 40)(wildcards, attempt)


def training_recipe(name):
    """A model's recipe without its number of segments: raising that number reuses every segment that is done."""
    recipe = tracked(RECIPES.models[name])
    recipe.get("budget", {}).pop("segments", None)
    return recipe


def memory_of_training(wildcards, attempt):
    """Memory in MB. Examples are read as they are drawn: it is the same for any number of scans.

    Without a GPU the activations lie here too: 20 kB per voxel of a batch, as measured with 64 channels, and less in a
    network that gathers pixels first.
    """
    model = RECIPES.models[wildcards.model]
    side = model.network.get("unshuffle", 1)
    gathered = side**2 if isinstance(side, int) and side > 0 else 1  # what else it may say, check_model refuses
    return int((1500 + 0.02 * model.budget.batch * model.data.voxels / gathered) * attempt)


def blind_recipe(name):
    """The blind degradation that a model's data name; None where they name none."""
    named = getattr(RECIPES.models[name].data, "degradation", "")
    return tracked(RECIPES.blind[named]) if named else None


def versions_of_model(stage):
    """A params function: the versions of a stage and of the parts that a model is made by."""

    def lookup(wildcards):
        return versions(stage, parts_of_model(RECIPES.models[wildcards.model]))

    return lookup


def map_of(wildcards):
    """The row of the table of label maps that a job is about."""
    return MAP_OF[f"{wildcards.dataset}/{wildcards.subject}"]


def labels_table(dataset):
    """The table that says what the numbers in a dataset's label maps mean."""
    return RECIPES.datasets[dataset].table or str(synthseg_labels())


def anatomies_of(wildcards):
    """What a model is trained on: its label maps by name and split, what is made of each, and what that follows from."""
    targets.refuse_models_without_data([wildcards.model], RECIPES, SCANS, MAPS)  # no table need use it
    version = versions("prepare_anatomy")
    return [
        [one.name, one.split, targets.anatomy(RESULTS, one), one.key, digest_of([labels_table(one.dataset)]), version]
        for one in training_maps(wildcards)
    ]


def digest_of(paths):
    """One hash over the content of several files."""
    content = hashlib.sha256()
    for path in paths:
        content.update(Path(path).read_bytes())
    return content.hexdigest()


def commit_of_code(wildcards, output):
    """The commit that this project is at; not tracked (it takes ``output``): stage versions decide reruns."""
    return commit_at(workflow.basedir)


def tables_with_truth():
    """The tables that have scores to show."""
    return [
        name
        for name, table in TABLES.items()
        if any(RECIPES.degradations[degradation].kind == "simulated" for degradation in table.degradations)
    ]


# What people are given: it is made again when it is deleted.
VOLUMES = [
    *targets.volumes(RESULTS, UNITS, RECIPES, list(config["render"]["larger"])),
    *targets.descriptions(RESULTS, UNITS),
    *(lost_maps(targets.check(RESULTS, unit) for unit in UNITS) if workflow.is_main_process else []),
]
TABLE_FILES = [
    f"{RESULTS}/scores/scores.tsv",
    *(f"{RESULTS}/tables/{name}.{ending}" for name in tables_with_truth() for ending in ("tsv", "md")),
]


def training_scans(wildcards):
    """The scans of a model, whether a table uses it or not."""
    return targets.training_scans(SCANS, RECIPES.models[wildcards.model])


def training_maps(wildcards):
    """The label maps of a model, whether a table uses it or not."""
    return targets.training_maps(MAPS, RECIPES.models[wildcards.model])


def stores_of(wildcards):
    """What a model is trained on: the scans by name, split and suffix, with the stores of their slices."""
    return [[scan.name, scan.split, scan.suffix, targets.slices(RESULTS, scan)] for scan in training_scans(wildcards)]


def models_drawn_from(kind):
    """A wildcard constraint: the models that are trained on datasets of a kind."""
    return one_of(name for name in TRAINED if RECIPES.models[name].data.drawn_from == kind)


def companion_weights(wildcards):
    """The weights of the models that a model names itself."""
    return [f"{RESULTS}/models/{name}/weights.safetensors" for name in RECIPES.models_of("models", wildcards.model)]


def previous_segment(wildcards):
    """The state that a segment continues: none for the first."""
    segment = int(wildcards.segment)
    return f"{RESULTS}/models/{wildcards.model}/segment-{segment - 1}.safetensors" if segment else []


def all_segments(wildcards):
    return range(RECIPES.models[wildcards.model].budget.segments)


def methods_that(do):
    """A wildcard constraint: the methods whose recipe is as asked."""
    return one_of(name for name, method in RECIPES.methods.items() if do(method))


def models_of_method(wildcards):
    """The trained models that a method uses itself; their weights hold what they need in turn."""
    return MODELS_OF_METHOD[wildcards.method]


def method_weights(wildcards):
    return [f"{RESULTS}/models/{model}/weights.safetensors" for model in models_of_method(wildcards)]


def uncertainty_of(wildcards):
    """The map of what a method foretells of its errors; none of one that foretells nothing."""
    unit = targets.Unit(wildcards.method, wildcards.degradation, scan_of(wildcards))
    foretells = RECIPES.methods[wildcards.method].foretells
    return [targets.volume(RESULTS, unit, "uncertainty", "nii.gz")] if foretells else []


def memory_of_method(base):
    """Memory in MB by what a method takes per voxel."""
    by_method = {name: memory(base, method.bytes_per_voxel) for name, method in RECIPES.methods.items()}

    def megabytes(wildcards, attempt):
        return by_method[wildcards.method](wildcards, attempt)

    return megabytes


def profile_of(wildcards):
    return ", ".join(sorted({stack.profile for stack in RECIPES.degradations[wildcards.degradation].stacks}))


def stacks_of(wildcards):
    """How the scans of a head were sampled from it."""
    return [tracked(stack) for stack in RECIPES.degradations[wildcards.degradation].stacks]


def measures_of(wildcards, family):
    """What one family of metrics measures of a volume: the masks of every metric."""
    unit = targets.Unit(wildcards.method, wildcards.degradation, scan_of(wildcards))
    return MEASURED[unit][family]


def masks_of(wildcards, family):
    """The masks that one family of metrics measures a volume in."""
    return sorted({mask for masks in measures_of(wildcards, family).values() for mask in masks})


def metrics_of(wildcards, family):
    """The parts that measure a volume."""
    return [f"metric.{metric}" for metric in measures_of(wildcards, family)]


def set_of(wildcards):
    """The set of slices that a job is about."""
    suffix = "" if wildcards.group == "all" else wildcards.group
    return targets.SliceSet(wildcards.table, wildcards.method, wildcards.degradation, suffix)


def features_of_set(wildcards):
    """The features of the volumes whose slices are compared."""
    encoder, (_, units) = RECIPES.tables[wildcards.table].encoder, SETS[set_of(wildcards)]
    return [targets.features(RESULTS, encoder, unit) for unit in units]


def weights_behind_set(wildcards):
    """The weights of the models behind a method, and of the encoder by which its slices are compared."""
    encoder = RECIPES.tables[wildcards.table].encoder
    return [*method_weights(wildcards), f"{RESULTS}/models/{encoder}/weights.safetensors"]


def networks_of(model):
    """The parts that a model's networks are."""
    return [f"network.{name}" for name in architectures_of(RECIPES.models[model])]


def titles_of(wildcards):
    return [[name, title] for name, title in RECIPES.titles_in(wildcards.table).items()]


def words_of_metrics(tables):
    """What people read of the metrics of tables: with other words these are printed anew."""
    recipes = [RECIPES.tables[name] for name in tables]
    columns = [column for table in recipes for column in (*table.columns, *table.expectations)]
    metrics = {name: METRICS[name] for name in sorted({column.metric for column in columns})}
    return {name: [m.title, m.unit, m.decimals, m.better, m.words] for name, m in metrics.items()}


def published():
    """The files of published values, by their table."""
    return {name: table.published for name, table in TABLES.items() if table.published}


def units_of_head(wildcards):
    """Every volume of one head under one degradation, in the order of the tables."""
    return UNITS_OF_HEAD[scan_of(wildcards), wildcards.degradation]


def recipes_in_use():
    """The recipes that the results follow from, as they are stated: the report describes these and no others."""
    used = RECIPES.used_by("tables", TABLES)
    seen = [
        scan
        for name in targets.trained(MODELS, RECIPES)
        for scan in targets.training_scans(SCANS, RECIPES.models[name])
    ]
    used["datasets"] |= {scan.dataset for scan in [*seen, *(unit.scan for unit in UNITS)]}
    return {
        part: {n: r for n, r in stated(getattr(RECIPES, part)).items() if n in names} for part, names in used.items()
    }


def truth_of(wildcards):
    simulated = RECIPES.degradations[wildcards.degradation].kind == "simulated"
    return targets.preprocessed(RESULTS, scan_of(wildcards)) if simulated else []


def checks_by_name():
    return {f"{u.method} {u.degradation} {u.scan.name}": targets.check(RESULTS, u) for u in UNITS}


def histories():
    return targets.histories(RESULTS, MODELS, UNITS, RECIPES)


PICTURES = [
    *targets.figures(RESULTS, UNITS),
    *MASKS_FIGURES.values(),
    *([f"{RESULTS}/figures/curves.png"] if histories() else []),
    f"{RESULTS}/figures/rulegraph.png",
]


def keys_of_training():
    """The content keys that each model or fit was made from."""
    return targets.keys_of_training(MODELS, UNITS, RECIPES, SCANS, MAPS)


# Changes with the workflow files: what the picture of their graph depends on.
RULE_DIGEST = digest_of(
    [
        workflow.main_snakefile,
        *sorted(Path(workflow.main_snakefile).parent.glob("workflow/rules/*.smk")),
    ]
)
