# Models trained on 2-D slices. A training longer than one wall time is a chain of segments (docs/decisions.md).


rule train_baseline:
    input:
        index="<results>/slices/training.json",
    output:
        weights="<results>/models/{model}/weights.safetensors",
        history="<results>/models/{model}/history.jsonl",
        recipe="<results>/models/{model}/recipe.yaml",
    log:
        "<logs>/train_baseline/{model}.log",
    benchmark:
        "<benchmarks>/train_baseline/{model}.tsv"
    wildcard_constraints:
        model=models_of_kind("baseline"),
    # Training is the longest way to the end: it starts as soon as its slices are there.
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory(2500),
        runtime=24 * 60,
    params:
        recipe=recipe_of("models"),
        stage=versions("train_baseline"),
        scratch=subpath(output.weights, parent=True),
    message:
        "Train the baseline network {wildcards.model}"
    script:
        "../scripts/train_baseline.py"


rule train_autoencoder:
    input:
        index="<results>/slices/training.json",
    output:
        weights="<results>/models/{model}/weights.safetensors",
        history="<results>/models/{model}/history.jsonl",
        recipe="<results>/models/{model}/recipe.yaml",
    log:
        "<logs>/train_autoencoder/{model}.log",
    benchmark:
        "<benchmarks>/train_autoencoder/{model}.tsv"
    wildcard_constraints:
        model=models_of_kind("autoencoder"),
    # Training is the longest way to the end: it starts as soon as its slices are there.
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory(2500),
        runtime=24 * 60,
    params:
        recipe=recipe_of("models"),
        stage=versions("train_autoencoder"),
        scratch=subpath(output.weights, parent=True),
    message:
        "Train the autoencoder {wildcards.model}"
    script:
        "../scripts/train_autoencoder.py"


rule train_ldm_segment:
    input:
        index="<results>/slices/training.json",
        autoencoder=autoencoder_weights,
        previous=previous_segment,
    output:
        state="<results>/models/{model}/segment-{segment}.safetensors",
        history="<results>/models/{model}/segment-{segment}.jsonl",
    log:
        "<logs>/train_ldm_segment/{model}-{segment}.log",
    benchmark:
        "<benchmarks>/train_ldm_segment/{model}-{segment}.tsv"
    wildcard_constraints:
        model=models_of_kind("ldm"),
    # Training is the longest way to the end: it starts as soon as its slices are there.
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory(2500),
        runtime=24 * 60,
    params:
        # The number of segments is left out: raising it reuses every segment that is done.
        recipe=lambda wildcards: training_recipe(RECIPES.models[wildcards.model]),
        stage=versions("train_ldm_segment"),
        scratch=subpath(output.state, parent=True),
    message:
        "Train the latent diffusion model {wildcards.model}, segment {wildcards.segment}"
    script:
        "../scripts/train_ldm_segment.py"


rule export_ldm:
    input:
        state=lambda w: f"{RESULTS}/models/{w.model}/segment-{all_segments(w)[-1]}.safetensors",
        autoencoder=autoencoder_weights,
        histories=lambda w: [f"{RESULTS}/models/{w.model}/segment-{k}.jsonl" for k in all_segments(w)],
    output:
        weights="<results>/models/{model}/weights.safetensors",
        history="<results>/models/{model}/history.jsonl",
        recipe="<results>/models/{model}/recipe.yaml",
    log:
        "<logs>/export_ldm/{model}.log",
    wildcard_constraints:
        model=models_of_kind("ldm"),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1500),
        runtime=15,
    params:
        recipe=recipe_of("models"),
        stage=versions("export_ldm"),
    message:
        "Export the averaged weights of {wildcards.model}"
    script:
        "../scripts/export_ldm.py"
