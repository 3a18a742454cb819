# What people read: tables, figures, the report, MLflow; and the targets by name.


def titles():
    return {name: method.title for name, method in RECIPES.methods.items()}


rule make_table:
    input:
        scores="<results>/scores/scores.tsv",
    output:
        tsv="<results>/tables/{table}.tsv",
        markdown="<results>/tables/{table}.md",
    log:
        "<logs>/make_table/{table}.log",
    threads: 1
    resources:
        mem_mb=memory(300),
        runtime=5,
    params:
        recipe=recipe_of("tables"),
        titles=titles(),
        scans=lambda wildcards: [scan.name for scan in targets.scans_of(RECIPES.tables[wildcards.table], SCANS)],
        stage=STAGE_VERSIONS["make_table"],
    conda:
        "../envs/imaging.yaml"
    message:
        "Make the table {wildcards.table}"
    script:
        "../scripts/make_table.py"


def units_of_head(wildcards):
    """Every volume of one head under one degradation, in the order of the methods file."""
    scan = scan_of(wildcards)
    mine = [u for u in UNITS if u.scan == scan and u.degradation == wildcards.degradation]
    return sorted(mine, key=lambda unit: list(RECIPES.methods).index(unit.method))


def truth_of(wildcards):
    simulated = RECIPES.degradations[wildcards.degradation].kind == "simulated"
    return targets.preprocessed(RESULTS, scan_of(wildcards)) if simulated else []


rule draw_figure:
    input:
        truth=truth_of,
        lowres=lowres_of,
        head_mask="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
        volumes=lambda w: [targets.volume(RESULTS, u, "sr", "nii.gz") for u in units_of_head(w)],
        checks=lambda w: [targets.check(RESULTS, u) for u in units_of_head(w)],
    output:
        figure="<results>/figures/{degradation}/<head>_{suffix}.png",
    log:
        "<logs>/draw_figure/{degradation}/<head>_{suffix}.log",
    threads: 1
    resources:
        mem_mb=memory(800, 60),
        runtime=15,
    params:
        methods=lambda w: [RECIPES.methods[u.method].title for u in units_of_head(w)],
        stage=STAGE_VERSIONS["draw_figure"],
    conda:
        "../envs/imaging.yaml"
    message:
        "Draw {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}"
    script:
        "../scripts/draw_figure.py"
