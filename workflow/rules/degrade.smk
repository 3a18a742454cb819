# Low-resolution scans: simulated from a high-resolution scan, or the scan itself where it is thick already. Further
# acquired scans of the same head are aligned to the first.


rule simulate_lowres:
    input:
        volume="<results>/preprocessed/<head>_desc-preproc_{suffix}.nii.gz",
        sidecar="<results>/preprocessed/<head>_desc-preproc_{suffix}.json",
        head_mask="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
    output:
        scan="<results>/lowres/{degradation}/<head>_desc-{view}_{suffix}.nii.gz",
        sidecar="<results>/lowres/{degradation}/<head>_desc-{view}_{suffix}.json",
        head_mask="<results>/lowres/{degradation}/<head>_label-head_desc-{view}{suffix}_mask.nii.gz",
    log:
        "<logs>/simulate_lowres/{degradation}/<head>_desc-{view}_{suffix}.log",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1200, 40),
        runtime=10,
    params:
        recipe=recipe_of("degradations"),
        name=lambda wildcards: scan_of(wildcards).name,
        source_key=key_of,
        source_path=lambda wildcards: scan_of(wildcards).path,
        thickness=lambda wildcards: scan_of(wildcards).thickness,
        signed=lambda wildcards: RECIPES.datasets[wildcards.dataset].signed,
        stage=versions("simulate_lowres"),
    message:
        "Simulate the {wildcards.view} scan of {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}"
    script:
        "../scripts/simulate_lowres.py"


rule align_scan:
    input:
        moving=lowres_of_moving("desc-acquired_{suffix}.nii.gz"),
        moving_sidecar=lowres_of_moving("desc-acquired_{suffix}.json"),
        moving_head_mask=lowres_of_moving("label-head_desc-acquired{suffix}_mask.nii.gz"),
        reference="<results>/lowres/{degradation}/<head>_desc-acquired_{suffix}.nii.gz",
        reference_sidecar="<results>/lowres/{degradation}/<head>_desc-acquired_{suffix}.json",
    output:
        scan="<results>/lowres/{degradation}/<head>_desc-acquired{number}_{suffix}.nii.gz",
        sidecar="<results>/lowres/{degradation}/<head>_desc-acquired{number}_{suffix}.json",
        head_mask="<results>/lowres/{degradation}/<head>_label-head_desc-acquired{number}{suffix}_mask.nii.gz",
    log:
        "<logs>/align_scan/{degradation}/<head>_desc-acquired{number}_{suffix}.log",
    wildcard_constraints:
        number=r"[2-9]|[1-9]\d+",
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000, 60),
        runtime=30,
    params:
        moving_name=lambda wildcards: moving_of(wildcards).name,
        reference_name=lambda wildcards: scan_of(wildcards).name,
        stage=versions("align_scan"),
    message:
        "Align scan {wildcards.number} of {wildcards.scan}_{wildcards.suffix} to the first"
    script:
        "../scripts/align_scan.py"
