"""Every kind of file that users and datasets give, by the name of its rows in docs/results/fuzzing.md."""

from fuzz import fuzz_json, fuzz_nifti, fuzz_safetensors, fuzz_tsv, fuzz_yaml

FILES = {
    "NIfTI": fuzz_nifti.prepare,
    "YAML": fuzz_yaml.prepare,
    "TSV": fuzz_tsv.prepare,
    "JSON": fuzz_json.prepare,
    "safetensors": fuzz_safetensors.prepare,
}
