"""What a name in the configuration means: frozen types for every YAML block, free of torch."""

from headsr.recipes.convert import RecipeError, build, expanded, merged, plain, stated, tracked
from headsr.recipes.data import (
    DATASETS,
    PROFILES,
    VIEWS,
    Blind,
    BlindStage,
    Dataset,
    DatasetRecipe,
    Degradation,
    LabelMaps,
    Stack,
)
from headsr.recipes.load import (
    Recipes,
    architectures_of,
    check_config,
    config_files,
    every_part,
    load_config,
    load_datasets,
    load_recipes,
    model_references,
    parts_of_method,
    parts_of_model,
    stated_in,
    versions,
    write_out_paths,
)
from headsr.recipes.methods import (
    METHODS,
    Average,
    Fit,
    GridField,
    Inr,
    Method,
    MethodRecipe,
    SliceNetwork,
    Spline,
    Tikhonov,
    TotalVariation,
    Unrolled,
)
from headsr.recipes.models import DATA, MODELS, Budget, Data, DataRecipe, Ldm, Model, ModelRecipe, Told
from headsr.recipes.shipped import Shipped
from headsr.recipes.tables import VARIANTS, Column, Expectation, Table

__all__ = [
    "DATA", "DATASETS", "METHODS", "MODELS", "PROFILES", "VARIANTS", "VIEWS", "Average", "Blind", "BlindStage",
    "Budget", "Column", "Data", "DataRecipe", "Dataset", "DatasetRecipe", "Degradation", "Expectation", "Fit",
    "GridField", "Inr", "LabelMaps", "Ldm", "Method", "MethodRecipe", "Model", "ModelRecipe", "RecipeError",
    "Recipes", "Shipped", "SliceNetwork", "Spline", "Stack", "Table", "Tikhonov", "Told", "TotalVariation", "Unrolled",
    "architectures_of", "build", "check_config", "config_files",
    "every_part", "expanded", "load_config", "load_datasets", "load_recipes", "merged",
    "model_references", "parts_of_method", "parts_of_model", "plain", "stated", "stated_in", "tracked", "versions",
    "write_out_paths",
]  # fmt: skip
