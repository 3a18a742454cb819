# What people read: tables, figures, the report, MLflow; and the targets by name.


rule make_table:
    input:
        scores="<results>/scores/scores.tsv",
        published=lambda wildcards: RECIPES.tables[wildcards.table].published or [],
    output:
        tsv="<results>/tables/{table}.tsv",
        markdown="<results>/tables/{table}.md",
    log:
        "<logs>/make_table/{table}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(300),
        runtime=5,
    params:
        recipe=lambda wildcards: stated(RECIPES.tables[wildcards.table]),
        titles=titles_of,
        scans=lambda wildcards: [scan.name for scan in targets.scans_of(RECIPES.tables[wildcards.table], SCANS)],
        metrics=lambda wildcards: words_of_metrics([wildcards.table]),
        stage=versions("make_table"),
    message:
        "Make the table {wildcards.table}"
    script:
        "../scripts/make_table.py"


rule draw_figure:
    input:
        truth=truth_of,
        lowres=lowres_of,
        beside_lowres=beside_lowres_of,
        head_mask="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
        brain_mask="<results>/preprocessed/<head>_label-brain_desc-{suffix}_mask.nii.gz",
        volumes=lambda w: [targets.volume(RESULTS, u, "sr", "nii.gz") for u in units_of_head(w)],
        checks=lambda w: [targets.check(RESULTS, u) for u in units_of_head(w)],
    output:
        figure="<results>/figures/{degradation}/<head>_{suffix}.png",
    log:
        "<logs>/draw_figure/{degradation}/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(800, 60),
        runtime=15,
    params:
        methods=lambda w: [u.method for u in units_of_head(w)],
        title=lambda w: f"{scan_of(w).name}, {w.degradation}",
        stage=versions("draw_figure"),
    message:
        "Draw {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}"
    script:
        "../scripts/draw_figure.py"


rule draw_masks:
    input:
        scan="<results>/preprocessed/<head>_desc-preproc_{suffix}.nii.gz",
        sidecar="<results>/preprocessed/<head>_desc-preproc_{suffix}.json",
        head_mask="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
        brain_mask="<results>/preprocessed/<head>_label-brain_desc-{suffix}_mask.nii.gz",
    output:
        figure="<results>/figures/<head>_desc-masks_{suffix}.png",
    log:
        "<logs>/draw_masks/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(500, 30),
        runtime=5,
    params:
        title=lambda w: scan_of(w).name,
        stage=versions("draw_masks"),
    message:
        "Draw the masks of {wildcards.scan}_{wildcards.suffix}"
    script:
        "../scripts/draw_masks.py"


rule draw_curves:
    input:
        histories=lambda w: list(histories().values()),
    output:
        figure="<results>/figures/curves.png",
    log:
        "<logs>/draw_curves.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=10,
    params:
        names=lambda w: list(histories()),
        stage=versions("draw_curves"),
    message:
        "Draw the loss curves of every training and fit"
    script:
        "../scripts/draw_curves.py"


rule draw_rulegraph:
    output:
        figure="<results>/figures/rulegraph.png",
    log:
        "<logs>/draw_rulegraph.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=10,
    params:
        rules=RULE_DIGEST,
        configfiles=lambda w, output: [str(path) for path in workflow.overwrite_configfiles],
        stage=versions("draw_rulegraph"),
    message:
        "Draw the rule graph"
    script:
        "../scripts/draw_rulegraph.py"


rule write_report:
    input:
        scores="<results>/scores/scores.tsv",
        checks=lambda w: list(checks_by_name().values()),
        figures=lambda w: targets.figures(RESULTS, UNITS),
        masks=list(MASKS_FIGURES.values()),
        curves=lambda w: rules.draw_curves.output.figure if histories() else [],
        rulegraph="<results>/figures/rulegraph.png",
        published=list(published().values()),
    output:
        report=report("<results>/report/report.html", category="headsr"),
    log:
        "<logs>/write_report.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=10,
    params:
        recipes=recipes_in_use(),
        tables=lambda w: {
            name: [scan.name for scan in targets.scans_of(RECIPES.tables[name], SCANS)] for name in config["tables"]
        },
        names=lambda w: list(checks_by_name()),
        volumes=lambda w: [targets.volume(RESULTS, u, "sr", "nii.gz") for u in UNITS],
        captions=lambda w: targets.captions(UNITS),
        masked=list(MASKS_FIGURES),
        records=lambda w, output: f"{RESULTS}/records",
        published=list(published()),
        commit=commit_of_code,
        metrics=words_of_metrics(TABLES),
        stage=versions("write_report"),
    message:
        "Write the report"
    script:
        "../scripts/write_report.py"


rule sync_mlflow:
    input:
        histories=lambda w: list(histories().values()),
        scores=targets.scores(RESULTS, MEASURED, SETS),
        checks=lambda w: list(checks_by_name().values()),
    output:
        record="<results>/mlflow.json",
    log:
        "<logs>/sync_mlflow.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=30,
    params:
        # Where the mirror is does not change what is mirrored.
        database=lambda w, output: config["mlflow"],
        experiment=lambda w, output: f"headsr {config['results']}",
        histories=lambda w: list(histories()),
        checks=lambda w: list(checks_by_name()),
        # What was trained stands in its history: a title, which these hold too, makes no mirror stale.
        recipes=lambda w, output: plain(targets.recipes_of_training(MODELS, UNITS, RECIPES)),
        content_keys=lambda w: keys_of_training(),
        commit=commit_of_code,
        # A mirror that fails fails no run. But it counts, and so the next run, for which the count is another, tries again.
        failures=lambda w: failed_mirrors(f"{RESULTS}/mlflow.json"),
        stage=versions("sync_mlflow"),
    message:
        "Mirror histories, scores and checks to MLflow"
    script:
        "../scripts/sync_mlflow.py"


# Targets by the nouns that people ask for.
rule models:
    input:
        MODEL_CHECKS,
        [f"{RESULTS}/models/{name}/weights.safetensors" for name in MODELS],


rule reconstructions:
    input:
        MODEL_CHECKS,
        VOLUMES,


rule tables:
    input:
        MODEL_CHECKS,
        TABLE_FILES,
