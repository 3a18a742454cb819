# Scans, their companions and label maps by content key: the only place where data identity enters the DAG.


rule fetch_scan:
    output:
        scan=temp("<results>/sourcedata/{dataset}/{folder}/{file}.nii.gz"),
    log:
        "<logs>/fetch_scan/{dataset}/{folder}/{file}.log",
    wildcard_constraints:
        file=one_of([PINNED_PATTERN, FILE_PATTERN]),
    conda:
        "../envs/datalad.yaml"
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=30,
    params:
        key=lambda wildcards: pin_of(wildcards).key,
        # Where the content comes from, and how politely, does not change it. A function that takes `output` is not tracked
        # by Snakemake, so moving the clones or changing the bound reruns nothing.
        clone=lambda wildcards, output: f"{config['clones']}/{wildcards.dataset}",
        at_once=lambda wildcards, output: config["fetches_at_once"],
        path=lambda wildcards, output: pin_of(wildcards).path,
        name=lambda wildcards: pin_of(wildcards).name,
        stage=versions("fetch_scan"),
    message:
        "Fetch {wildcards.file} of {wildcards.dataset} by its content key"
    script:
        "../scripts/fetch_scan.py"


rule make_template:
    output:
        head="<results>/sourcedata/template/head.nii.gz",
        brain="<results>/sourcedata/template/brain.nii.gz",
    log:
        "<logs>/make_template.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(2500),
        runtime=10,
    params:
        voxel_mm=config["template_voxel_mm"],
        stage=versions("make_template"),
    message:
        "Make the whole-head template from the MNI152 maps in nilearn's wheel"
    script:
        "../scripts/make_template.py"
