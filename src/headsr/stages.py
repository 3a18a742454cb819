"""The version of every stage: bump an integer to recompute that stage, and what depends on it, on purpose.

Library edits are invisible to Snakemake, so each rule carries ``headsr.recipes.versions(rule, parts)`` in its params.
Standard library only.
"""

STAGE_VERSIONS: dict[str, int] = {
    "fetch_scan": 1,
    "make_template": 2,
    "correct_bias": 3,
    "register_to_template": 2,
    "mask_head": 2,
    "normalize_intensity": 3,
    "carry_companion": 1,
    "extract_slices": 3,
    "simulate_lowres": 5,
    "align_scan": 3,
    "list_training_data": 1,
    "prepare_anatomy": 1,
    "list_anatomies": 1,
    "check_model": 1,
    "train_segment": 1,
    "export_model": 2,
    "take_model": 2,
    "reconstruct_volume": 9,
    "fit_field": 6,
    "render_volume": 7,
    "describe_derivatives": 2,
    "check_volume": 3,
    "map_residual": 1,
    "score_volume": 2,
    "score_features": 1,
    "score_set": 1,
    "collect_scores": 1,
    "make_table": 2,
    "draw_figure": 2,
    "draw_masks": 2,
    "draw_curves": 1,
    "draw_rulegraph": 1,
    "write_report": 3,
    "sync_mlflow": 1,
}
