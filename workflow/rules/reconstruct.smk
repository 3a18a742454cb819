# Volumes: from the low-resolution scans of a head to its super-resolved volume, by every method.


rule interpolate_volume:
    input:
        lowres=lowres_of,
    output:
        store="<volume>_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        sidecar="<volume>_res-hi_desc-sr_{suffix}.json",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
    log:
        "<logs>/interpolate_volume/<unit>.log",
    wildcard_constraints:
        method=one_of(METHODS_OF_KIND["spline"] + METHODS_OF_KIND["average"]),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1200, 80),
        runtime=30,
    params:
        recipe=recipe_of("methods"),
        stage=versions("interpolate_volume"),
    message:
        "Interpolate {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}"
    script:
        "../scripts/interpolate_volume.py"


rule solve_volume:
    input:
        lowres=lowres_of,
    output:
        store="<volume>_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        sidecar="<volume>_res-hi_desc-sr_{suffix}.json",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
    log:
        "<logs>/solve_volume/<unit>.log",
    wildcard_constraints:
        method=one_of(METHODS_OF_KIND["tikhonov"]),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=memory(1200, 120),
        runtime=60,
    params:
        recipe=recipe_of("methods"),
        stage=versions("solve_volume"),
    message:
        "Solve for {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation} by regularised least squares"
    script:
        "../scripts/solve_volume.py"


rule upsample_volume:
    input:
        lowres=lowres_of,
        weights=method_weights,
    output:
        store="<volume>_res-hi_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-hi_desc-sr_{suffix}.nii.gz",
        sidecar="<volume>_res-hi_desc-sr_{suffix}.json",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
    log:
        "<logs>/upsample_volume/<unit>.log",
    wildcard_constraints:
        method=one_of(METHODS_OF_KIND["slice_network"]),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory(1500, 120),
        runtime=60,
    params:
        recipe=recipe_of("methods"),
        stage=versions("upsample_volume"),
    message:
        "Upsample {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation} by the network of {wildcards.method}"
    script:
        "../scripts/upsample_volume.py"


rule fit_inr:
    input:
        lowres=lowres_of,
        prior=prior_weights,
    output:
        field="<volume>_desc-field_{suffix}.safetensors",
        unprojected="<volume>_res-hi_desc-unprojected_{suffix}.nii.gz",
        history="<volume>_desc-fit_{suffix}.jsonl",
    log:
        "<logs>/fit_inr/<unit>.log",
    benchmark:
        "<benchmarks>/fit_inr/<unit>.tsv"
    wildcard_constraints:
        method=one_of(METHODS_OF_KIND["inr"]),
    conda:
        "../envs/torch.yaml"
    threads: 1
    resources:
        gpu=1,
        mem_mb=memory(1500, 600),
        runtime=120,
    params:
        recipe=recipe_of("methods"),
        stage=versions("fit_inr"),
    message:
        "Fit the field of {wildcards.scan}_{wildcards.suffix} under {wildcards.degradation}: {wildcards.method}"
    script:
        "../scripts/fit_inr.py"


rule render_volume:
    input:
        field="<volume>_desc-field_{suffix}.safetensors",
    output:
        store="<volume>_res-{grid}_desc-sr_{suffix}.ome.zarr/zarr.json",
        preview="<volume>_res-{grid}_desc-sr_{suffix}.nii.gz",
        sidecar="<volume>_res-{grid}_desc-sr_{suffix}.json",
    log:
        "<logs>/render_volume/<unit>_{grid}.log",
    benchmark:
        "<benchmarks>/render_volume/<unit>_{grid}.tsv"
    wildcard_constraints:
        method=one_of(METHODS_OF_KIND["inr"]),
        grid=one_of(["hi", *config["render"]["larger"]]),
    conda:
        "../envs/torch.yaml"
    threads: 1 if config["render"]["scheduler"] == "slurm" else config["render"]["workers"]
    resources:
        mem_mb=memory(1500, 40),
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
