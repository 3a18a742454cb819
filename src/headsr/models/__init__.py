"""Weights that ship in the package: one ``<name>.safetensors`` a model, with its card, ``<name>.json``, beside it."""
