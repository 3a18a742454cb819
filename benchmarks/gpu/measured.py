"""How a part of a run on a lent card says what it measured: one line of JSON a number, as soon as there is one."""

import json


def say(name: str, value: float | str, unit: str = "") -> None:
    """Print a number (or a word) for the summary; it is kept though the part be killed right after."""
    print(json.dumps({"number": name, "value": value, "unit": unit}), flush=True)


def number_in(line: str) -> dict | None:
    """What ``say`` printed, or None for any other line."""
    try:
        found = json.loads(line) if line.startswith('{"number"') else None
    except json.JSONDecodeError:
        return None
    return found
