# Anatomies that models are trained on: one per label map, so that one changed map changes one anatomy.


rule prepare_anatomy:
    input:
        dseg="<results>/sourcedata/{dataset}/{subject}/{subject}_dseg.nii.gz",
    output:
        anatomy="<results>/anatomies/{dataset}/{subject}.safetensors",
    log:
        "<logs>/prepare_anatomy/{dataset}/{subject}.log",
    wildcard_constraints:
        subject=SUBJECT_PATTERN,
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1500),
        runtime=10,
    params:
        source_key=lambda wildcards: map_of(wildcards).key,
        labels=lambda wildcards: digest_of([labels_table(wildcards.dataset)]),
        # Where the table lies decides nothing; what it says does.
        table=lambda wildcards, output: labels_table(wildcards.dataset),
        stage=versions("prepare_anatomy"),
    message:
        "Prepare the anatomy {wildcards.subject} of {wildcards.dataset}"
    script:
        "../scripts/prepare_anatomy.py"


rule list_anatomies:
    input:
        anatomies=lambda wildcards: [path for _, _, path, *_ in anatomies_of(wildcards)],
    output:
        index="<results>/models/{model}/training.json",
    log:
        "<logs>/list_anatomies/{model}.log",
    wildcard_constraints:
        model=models_drawn_from("labelmaps"),
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
    params:
        anatomies=anatomies_of,
        stage=versions("list_anatomies"),
    message:
        "List the anatomies that {wildcards.model} is trained on"
    script:
        "../scripts/list_anatomies.py"
