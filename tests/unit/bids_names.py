"""The names in a dataset of derivatives, as the BIDS schema sees them."""

import fnmatch

from bidsschematools.rules import regexify_filename_rules
from bidsschematools.schema import load_schema
from bidsschematools.validator import validate_all


def validate(folder):
    """The names that BIDS knows no rule for, and all names it was asked about.

    ``validate_bids`` itself knows the rules of raw datasets only, so it is given those of derivatives here.
    """
    schema = load_schema()
    groups = (schema.rules.files.common, schema.rules.files.deriv)
    rules = [rule for group in groups for rule in regexify_filename_rules(group, schema, level=2)]
    ignored = (folder / ".bidsignore").read_text().splitlines()
    names = []
    for path in folder.rglob("*"):
        if path.suffix == ".zarr":
            names.append(f"{path.relative_to(folder)}/")
        elif path.is_file() and not path.name.startswith(".") and ".ome.zarr" not in str(path.parent):
            names.append(str(path.relative_to(folder)))
    names = [name for name in names if not any(fnmatch.fnmatch(name.rsplit("/", 1)[-1], rule) for rule in ignored)]
    refused = validate_all(names, rules)["path_tracking"]
    return {name.rstrip("/").rsplit("/")[-1] for name in refused}, {name.rstrip("/").rsplit("/")[-1] for name in names}
