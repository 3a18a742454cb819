#!/usr/bin/env bash
# Snakemake runs this in its working directory once the environment is made: put headsr itself into it, as it is here.
set -eu
if [ ! -f src/headsr/__init__.py ]; then
    echo "run snakemake in the folder of headsr's Snakefile: $PWD has no src/headsr" >&2
    exit 1
fi
python -m pip install --no-deps --editable "$PWD"
