# From a scan as it came to intensities that mean the same in every head.


rule correct_bias:
    input:
        scan="<results>/sourcedata/<head>_{suffix}.nii.gz",
    output:
        volume="<results>/preprocessed/<head>_desc-biascorrected_{suffix}.nii.gz",
    log:
        "<logs>/correct_bias/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(1500, 60),
        runtime=30,
    params:
        voxel_mm=config["voxel_mm"],
        stage=versions("correct_bias"),
    message:
        "Correct the bias field of {wildcards.scan}_{wildcards.suffix}"
    script:
        "../scripts/correct_bias.py"


rule register_to_template:
    input:
        scan="<results>/preprocessed/<head>_desc-biascorrected_{suffix}.nii.gz",
        template="<results>/sourcedata/template/head.nii.gz",
        template_brain="<results>/sourcedata/template/brain.nii.gz",
    output:
        transform="<results>/preprocessed/<head>_from-{suffix}_to-MNI152_xfm.mat",
    log:
        "<logs>/register_to_template/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(1500, 60),
        runtime=30,
    params:
        stage=versions("register_to_template"),
    message:
        "Register {wildcards.scan}_{wildcards.suffix} to the MNI152 head"
    script:
        "../scripts/register_to_template.py"


rule mask_head:
    input:
        scan="<results>/preprocessed/<head>_desc-biascorrected_{suffix}.nii.gz",
        transform="<results>/preprocessed/<head>_from-{suffix}_to-MNI152_xfm.mat",
        template_brain="<results>/sourcedata/template/brain.nii.gz",
    output:
        head="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
        brain="<results>/preprocessed/<head>_label-brain_desc-{suffix}_mask.nii.gz",
    log:
        "<logs>/mask_head/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000, 40),
        runtime=20,
    params:
        stage=versions("mask_head"),
    message:
        "Mask the head and the brain of {wildcards.scan}_{wildcards.suffix}"
    script:
        "../scripts/mask_head.py"


rule normalize_intensity:
    input:
        scan="<results>/preprocessed/<head>_desc-biascorrected_{suffix}.nii.gz",
        head_mask="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
    output:
        volume="<results>/preprocessed/<head>_desc-preproc_{suffix}.nii.gz",
        sidecar="<results>/preprocessed/<head>_desc-preproc_{suffix}.json",
    log:
        "<logs>/normalize_intensity/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(700, 30),
        runtime=10,
    params:
        source_key=key_of,
        stage=versions("normalize_intensity"),
    message:
        "Normalise the intensities of {wildcards.scan}_{wildcards.suffix}"
    script:
        "../scripts/normalize_intensity.py"


rule carry_companion:
    input:
        mask="<results>/sourcedata/<head>_label-lesion_desc-{suffix}_mask.nii.gz",
        volume="<results>/preprocessed/<head>_desc-preproc_{suffix}.nii.gz",
    output:
        mask="<results>/preprocessed/<head>_label-lesion_desc-{suffix}_mask.nii.gz",
    log:
        "<logs>/carry_companion/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(700, 60),
        runtime=10,
    params:
        stage=versions("carry_companion"),
    message:
        "Carry the lesion mask of {wildcards.scan}_{wildcards.suffix} to its grid"
    script:
        "../scripts/carry_companion.py"
