# Volumes: from the low-resolution scans of a head to its super-resolved volume. Rules differ by what they need; what a
# method computes is said by its recipe.


rule reconstruct_volume:
    input:
        lowres=lowres_of,
        beside_lowres=beside_lowres_of,
        weights=method_weights,
    output:
        store="<volume>_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        sidecar="<volume>_res-hi_desc-sr_{suffix}.json",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
        unprojected_sidecar="<volume>_res-hi_desc-unprojected_{suffix}.json",
    log:
        "<logs>/reconstruct_volume/<unit>.log",
    wildcard_constraints:
        method=methods_that(lambda method: method.makes == "volume" and not method.gpu),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory_of_method(1200),
        runtime=60,
    params:
        recipe=recipe_of("methods"),
        models=models_of_method,
        stage=lambda wildcards: versions("reconstruct_volume", PARTS_OF_METHOD[wildcards.method]),
    message:
        "Reconstruct {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}"
    script:
        "../scripts/reconstruct_volume.py"


use rule reconstruct_volume as reconstruct_volume_gpu with:
    wildcard_constraints:
        method=methods_that(lambda method: method.makes == "volume" and method.gpu and not method.foretells),
    resources:
        gpu=1,
        mem_mb=memory_of_method(1500),
        runtime=60,


use rule reconstruct_volume as reconstruct_volume_and_uncertainty_gpu with:
    output:
        store="<volume>_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        sidecar="<volume>_res-hi_desc-sr_{suffix}.json",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
        unprojected_sidecar="<volume>_res-hi_desc-unprojected_{suffix}.json",
        uncertainty="<volume>_res-hi_desc-uncertainty_{suffix}.nii.gz",
        uncertainty_sidecar="<volume>_res-hi_desc-uncertainty_{suffix}.json",
    wildcard_constraints:
        method=methods_that(lambda method: method.makes == "volume" and method.foretells),
    resources:
        gpu=1,
        mem_mb=memory_of_method(1500),
        runtime=60,


rule fit_field:
    input:
        lowres=lowres_of,
        beside_lowres=beside_lowres_of,
        weights=method_weights,
    output:
        field="<volume>_desc-field_{suffix}.safetensors",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
        unprojected_sidecar="<volume>_res-hi_desc-unprojected_{suffix}.json",
        history="<volume>_desc-fit_{suffix}.jsonl",
    log:
        "<logs>/fit_field/<unit>.log",
    benchmark:
        "<benchmarks>/fit_field/<unit>.tsv"
    wildcard_constraints:
        method=methods_that(lambda method: method.makes == "field"),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory_of_method(1500),
        runtime=120,
    params:
        recipe=recipe_of("methods"),
        models=models_of_method,
        stage=lambda wildcards: versions("fit_field", PARTS_OF_METHOD[wildcards.method]),
    message:
        "Fit the field of {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}"
    script:
        "../scripts/fit_field.py"


rule render_volume:
    input:
        field="<volume>_desc-field_{suffix}.safetensors",
        lowres=compared_with,
        beside_lowres=lambda wildcards: targets.beside_lowres(compared_with(wildcards)),
    output:
        store="<volume>_res-{grid}_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-{grid}_desc-sr_{suffix}.nii.gz",
        sidecar="<volume>_res-{grid}_desc-sr_{suffix}.json",
    log:
        "<logs>/render_volume/<unit>_{grid}.log",
    benchmark:
        "<benchmarks>/render_volume/<unit>_{grid}.tsv"
    wildcard_constraints:
        method=methods_that(lambda method: method.makes == "field"),
        grid=one_of(["hi", *config["render"]["larger"]]),
    conda:
        "../envs/torch.yaml"
    threads: 1 if config["render"]["scheduler"] == "slurm" else config["render"]["workers"]
    resources:
        mem_mb=memory_of_render,
        runtime=render_minutes,
        # Who evaluates changes no byte: as a param it would be a reason to run again.
        scheduler=config["render"]["scheduler"],
        workers=config["render"]["workers"],
    params:
        larger=larger_grid,
        chunk=config["render"]["chunk"],
        shard=config["render"]["shard"],
        stage=versions("render_volume"),
    message:
        "Render {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}, {wildcards.grid}"
    script:
        "../scripts/render_volume.py"


rule describe_derivatives:
    output:
        description="<results>/reconstructions/{dataset}/headsr-{method}-{degradation}/dataset_description.json",
        labels="<results>/reconstructions/{dataset}/headsr-{method}-{degradation}/descriptions.tsv",
        ignored="<results>/reconstructions/{dataset}/headsr-{method}-{degradation}/.bidsignore",
    log:
        "<logs>/describe_derivatives/{dataset}/{method}-{degradation}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(300),
        runtime=5,
    params:
        source=lambda wildcards: plain(RECIPES.datasets[wildcards.dataset]),
        stage=versions("describe_derivatives"),
    message:
        "Describe the derivatives of {wildcards.dataset} by {wildcards.method} on {wildcards.degradation}"
    script:
        "../scripts/describe_derivatives.py"
