# headsr: from a DataLad-fetched BIDS dataset of heads to super-resolved volumes and measured tables.
from snakemake.utils import min_version

min_version("9.22")


configfile: "config/config.yaml"


include: "workflow/rules/common.smk"


pathvars:
    results=RESULTS,
    logs=f"{RESULTS}/logs",
    benchmarks=f"{RESULTS}/benchmarks",
    head="{dataset}/{folder}/{scan}",
    volume="<results>/reconstructions/{dataset}/headsr-{method}-{degradation}/{folder}/anat/{scan}",
    unit="{method}/{degradation}/{dataset}/{folder}/{scan}_{suffix}",


localrules:
    all,
    fetch_scan,
    list_training_data,
    list_anatomies,
    check_model,
    take_model,
    describe_derivatives,
    models,
    reconstructions,
    tables,
    collect_scores,
    make_table,
    draw_rulegraph,
    write_report,
    sync_mlflow,


# One run writes in a results folder. Called by the run itself and before its first job: not by a dry run, nor by the
# processes that its jobs are in, here or on other nodes.
onstart:
    hold_results_of_run()


onsuccess:
    say_where_the_report_is()


# The targets, by the nouns that people ask for. The first is what a bare `snakemake` makes. All that is published is one,
# so that what is deleted of it is made again; Snakemake does not look for what only made something that is there.
rule all:
    input:
        MODEL_CHECKS,
        VOLUMES,
        TABLE_FILES,
        PICTURES,
        f"{RESULTS}/report/report.html",
        f"{RESULTS}/mlflow.json",


include: "workflow/rules/sourcedata.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/degrade.smk"
include: "workflow/rules/slices.smk"
include: "workflow/rules/anatomies.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/reconstruct.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/paper.smk"


# After the rules, not before: Snakemake expands pathvars after it constrains wildcards, and only this directive looks again.
wildcard_constraints:
    dataset=DATASET_PATTERN,
    folder=FOLDER_PATTERN,
    scan=SCAN_PATTERN,
    suffix=one_of(SUFFIXES),
    view=one_of([*VIEWS, "acquired"]),
    degradation=one_of(RECIPES.degradations),
    method=one_of(RECIPES.methods),
    model=one_of(RECIPES.models),
    table=one_of(RECIPES.tables),
    group=one_of(["all", *SUFFIXES]),
    segment=r"\d+",
