# Is the volume whole, does it agree with its scan, and how near is it to the truth?


rule check_volume:
    input:
        store="<volume>_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
        lowres=lowres_of,
        beside_lowres=beside_lowres_of,
    output:
        # Written last, after the residual maps beside it: the mark that the volume passed.
        check="<volume>_desc-check_{suffix}.json",
    log:
        "<logs>/check_volume/<unit>.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1200, 60),
        runtime=20,
    params:
        stage=versions("check_volume"),
    message:
        "Check {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}"
    script:
        "../scripts/check_volume.py"


# A check writes the residual map of every scan beside its JSON; which there are it knows when it has read them. One that
# was deleted since is made again by itself.
rule map_residual:
    input:
        check="<volume>_desc-check_{suffix}.json",
        store="<volume>_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        lowres=lowres_of,
        beside_lowres=beside_lowres_of,
    output:
        map="<volume>_desc-srresidual{shown}_{suffix}.nii.gz",
        sidecar="<volume>_desc-srresidual{shown}_{suffix}.json",
    log:
        "<logs>/map_residual/<unit>_{shown}.log",
    wildcard_constraints:
        shown=r"[A-Z][a-z]+\d*",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1200, 60),
        runtime=20,
    params:
        stage=versions("map_residual"),
    message:
        "Map the {wildcards.shown} residual of {wildcards.scan}_{wildcards.suffix} again: {wildcards.method}"
    script:
        "../scripts/map_residual.py"


rule score_volume:
    input:
        check="<volume>_desc-check_{suffix}.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
        truth="<results>/preprocessed/<head>_desc-preproc_{suffix}.nii.gz",
        truth_sidecar="<results>/preprocessed/<head>_desc-preproc_{suffix}.json",
        masks=lambda w: [targets.mask(RESULTS, scan_of(w), label) for label in masks_of(w, "voxels")],
        weights=method_weights,
        uncertainty=uncertainty_of,
    output:
        score="<results>/scores/voxels/<unit>.json",
    log:
        "<logs>/score_volume/<unit>.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(700, 120),
        runtime=20,
    params:
        measures=lambda wildcards: measures_of(wildcards, "voxels"),
        masks=lambda wildcards: masks_of(wildcards, "voxels"),
        stacks=stacks_of,
        profile=profile_of,
        seed=lambda wildcards: RECIPES.degradations[wildcards.degradation].seed,
        stage=lambda wildcards: versions("score_volume", metrics_of(wildcards, "voxels")),
    message:
        "Score {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}"
    script:
        "../scripts/score_volume.py"


rule score_features:
    input:
        check="<volume>_desc-check_{suffix}.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
        truth="<results>/preprocessed/<head>_desc-preproc_{suffix}.nii.gz",
        truth_sidecar="<results>/preprocessed/<head>_desc-preproc_{suffix}.json",
        head_mask="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
        weights="<results>/models/{model}/weights.safetensors",
    output:
        features="<results>/features/{model}/<unit>.safetensors",
    log:
        "<logs>/score_features/{model}/<unit>.log",
    conda:
        "../envs/torch.yaml"
    threads: 2
    resources:
        mem_mb=memory(1200, 60),
        runtime=30,
    params:
        stage=lambda wildcards: versions("score_features", networks_of(wildcards.model)),
    message:
        "Features of {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}"
    script:
        "../scripts/score_features.py"


rule score_set:
    input:
        features=features_of_set,
        weights=weights_behind_set,
    output:
        score="<results>/scores/set/{table}/{method}/{degradation}/{group}.json",
    log:
        "<logs>/score_set/{table}/{method}/{degradation}/{group}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=lambda w, attempt: (2000 + 10 * len(features_of_set(w))) * attempt,
        runtime=30,
    params:
        suffix=lambda wildcards: set_of(wildcards).suffix,
        measures=lambda wildcards: SETS[set_of(wildcards)][0],
        stage=lambda w: versions("score_set", [f"metric.{metric}" for metric in SETS[set_of(w)][0]]),
    message:
        "Compare the slices of {wildcards.method} under {wildcards.degradation} with the truth's: {wildcards.group}"
    script:
        "../scripts/score_set.py"


rule collect_scores:
    input:
        scores=targets.scores(RESULTS, MEASURED, SETS),
    output:
        scores="<results>/scores/scores.tsv",
    log:
        "<logs>/collect_scores.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(300),
        runtime=10,
    params:
        stage=versions("collect_scores"),
    message:
        "Collect all scores"
    script:
        "../scripts/collect_scores.py"
