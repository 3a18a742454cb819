# Training slices: one store per scan, so that one changed subject changes one store.


rule extract_slices:
    input:
        volume="<results>/preprocessed/<head>_desc-preproc_{suffix}.nii.gz",
        sidecar="<results>/preprocessed/<head>_desc-preproc_{suffix}.json",
        head_mask="<results>/preprocessed/<head>_label-head_desc-{suffix}_mask.nii.gz",
    output:
        store="<results>/slices/<head>_{suffix}.zarr/zarr.json",
    log:
        "<logs>/extract_slices/<head>_{suffix}.log",
    conda:
        "../envs/imaging.yaml"
    threads: 1
    resources:
        mem_mb=memory(700, 40),
        runtime=10,
    params:
        stage=versions("extract_slices"),
    message:
        "Extract axial, coronal and sagittal slices of {wildcards.scan}_{wildcards.suffix}"
    script:
        "../scripts/extract_slices.py"
