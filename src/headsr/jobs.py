"""What every job of the workflow does around its one call: its output goes to its log, and what it made is recorded."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import headsr
from headsr import files
from headsr.files import unwritable
from headsr.provenance import Record, commit_at, contents_of, plain_params, record_path, write_record
from headsr.words import PlainFormatter, shown


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run the block as the job that Snakemake's ``snakemake`` object describes.

    All output goes to the rule's log, and when the block ends well, what it read and wrote is recorded beside that log
    (headsr.provenance). A block that fails leaves no record. Where it fails by a disk that is full or not to be written
    on, one sentence goes to the run itself: the log is on that disk, too.
    """
    run = os.dup(2)
    try:
        log_to(snakemake.log[0])
        with _recorded(snakemake):
            yield
    except Exception as error:
        if said := _said_of_disk(error, snakemake.log[0]):
            os.write(run, f"Error in {snakemake.rule}: {shown(said)}\n".encode())
        raise


def _said_of_disk(error: BaseException, log: str) -> str:
    """What an error says, where a disk that is full or not to be written on is behind it; else ''."""
    if said := unwritable(error, log):
        return str(said)
    return str(error) if error.__cause__ is not None and _said_of_disk(error.__cause__, log) else ""


@contextlib.contextmanager
def _recorded(snakemake: Any) -> Iterator[None]:
    """Write down what the block read and wrote, when it ends well."""
    warnings = Warnings()
    logging.getLogger().addHandler(warnings)
    yield
    results = snakemake.config["results"]
    outputs = contents_of(snakemake.output, results)
    beside = contents_of((path for path in files.completed() if path.exists()), results)
    params = plain_params(dict(snakemake.params.items()))
    record = Record(
        rule=snakemake.rule,
        stage=params.pop("stage"),
        params=params,
        sources={os.path.relpath(path, results): files.sha256_of(path) for path in snakemake.input},
        outputs=outputs,
        beside={path: content for path, content in beside.items() if path not in outputs},
        version=headsr.__version__,
        commit=commit_at(Path(__file__).parent),
        warnings=list(warnings.said),
    )
    write_record(record_path(results, snakemake.log[0]), record)


class Warnings(logging.Handler):
    """Keeps what is logged as a warning, each text once; of Python's own, what was said and not where."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: dict[str, None] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a record."""
        text = shown(record.getMessage(), keep="\n\t")
        self.said[text.splitlines()[0].split(": ", 1)[-1] if record.name == "py.warnings" else text] = None


def log_to(path: str) -> None:
    """Redirect this process's output, its children's too, to the rule's log, line by line."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    stream = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115 - open until the job ends
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(handlers=[handler], level=logging.INFO)
    logging.captureWarnings(True)
