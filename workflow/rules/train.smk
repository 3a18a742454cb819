# Models. Whatever is trained is a chain of segments, so that a training may be longer than one job (docs/decisions.md);
# what ships in the package is taken from there.


rule list_training_data:
    input:
        stores=lambda w: [store for _, _, _, store in stores_of(w)],
    output:
        index="<results>/models/{model}/training.json",
    log:
        "<logs>/list_training_data/{model}.log",
    wildcard_constraints:
        model=models_drawn_from("scans"),
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(500),
        runtime=5,
    params:
        scans=stores_of,
        stage=versions("list_training_data"),
    message:
        "List the scans that {wildcards.model} is trained on"
    script:
        "../scripts/list_training_data.py"


rule check_model:
    output:
        check="<results>/models/{model}/check.json",
    log:
        "<logs>/check_model/{model}.log",
    wildcard_constraints:
        model=one_of(TRAINED),
    # First of all. It is a target and no input of a training: Snakemake deletes what a failed job made before, and a slip
    # that was refused and mended would train the model anew.
    priority: 100
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1000),
        runtime=5,
    params:
        recipes=lambda w: {
            name: training_recipe(name) for name in sorted(RECIPES.used_by("models", [w.model])["models"])
        },
        # Where its recipe stands decides nothing.
        where=lambda w, output: stated_in(config["recipes"]["models"], w.model),
        stage=versions_of_model("check_model"),
    message:
        "Check the recipe of {wildcards.model}"
    script:
        "../scripts/check_model.py"


rule train_segment:
    input:
        index="<results>/models/{model}/training.json",
        companions=companion_weights,
        previous=previous_segment,
    output:
        state="<results>/models/{model}/segment-{segment}.safetensors",
        history="<results>/models/{model}/segment-{segment}.jsonl",
    log:
        "<logs>/train_segment/{model}-{segment}.log",
    benchmark:
        "<benchmarks>/train_segment/{model}-{segment}.tsv"
    wildcard_constraints:
        model=one_of(TRAINED),
    # Training is the longest way to the end: it starts as soon as its data are there.
    priority: 10
    conda:
        "../envs/torch.yaml"
    threads: 4
    resources:
        gpu=1,
        mem_mb=memory_of_training,
        runtime=24 * 60,
    params:
        # What decides the bytes of this segment: the number of segments only where it bends the learning rate.
        recipe=lambda w: training_recipe(w.model),
        course=lambda w: RECIPES.models[w.model].course(int(w.segment)),
        blind=lambda w: blind_recipe(w.model),
        stage=versions_of_model("train_segment"),
        scratch=subpath(output.state, parent=True),
        # It changes no byte: a function that takes `output` is not tracked.
        checkpointing=lambda w, output: RECIPES.models[w.model].checkpointing,
    message:
        "Train {wildcards.model}, segment {wildcards.segment}"
    script:
        "../scripts/train_segment.py"


rule export_model:
    input:
        state=lambda w: f"{RESULTS}/models/{w.model}/segment-{all_segments(w)[-1]}.safetensors",
        companions=companion_weights,
        histories=lambda w: [f"{RESULTS}/models/{w.model}/segment-{k}.jsonl" for k in all_segments(w)],
    output:
        weights="<results>/models/{model}/weights.safetensors",
        history="<results>/models/{model}/history.jsonl",
        recipe="<results>/models/{model}/recipe.yaml",
        card="<results>/models/{model}/weights.json",
    log:
        "<logs>/export_model/{model}.log",
    wildcard_constraints:
        model=one_of(TRAINED),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1500),
        runtime=15,
    params:
        recipe=recipe_of("models"),
        # For people alone: a function that takes `output` is not tracked.
        datasets=lambda w, output: targets.origins_of(w.model, RECIPES, SCANS, MAPS),
        citation=lambda w, output: RECIPES.models[w.model].citation,
        stage=versions_of_model("export_model"),
    message:
        "Export the averaged weights of {wildcards.model}"
    script:
        "../scripts/export_model.py"


rule take_model:
    output:
        weights="<results>/models/{model}/weights.safetensors",
        history="<results>/models/{model}/history.jsonl",
        card="<results>/models/{model}/weights.json",
    log:
        "<logs>/take_model/{model}.log",
    wildcard_constraints:
        model=one_of(SHIPPED),
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(300),
        runtime=5,
    params:
        # It holds the hash of the weights, so that other weights under the same name make anew what uses them.
        recipe=recipe_of("models"),
        stage=versions("take_model"),
    message:
        "Take the weights of {wildcards.model} from the package"
    script:
        "../scripts/take_model.py"
