"""The MLflow mirror: numbers that lie in files, copied into SQLite for people who like to look at them there.

Files are the truth. Nothing reads this database back, nothing waits for it, and its failures are warnings: a mirror
that is away must not fail a night of fits. Run again, only what changed is copied.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headsr.evaluate.collect import ScoredUnit, ScoreFile, read_score_file
from headsr.files import read_json, write_json
from headsr.history import history_so_far, read_history, write_history
from headsr.typed_json import read_as

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LOG = logging.getLogger(__name__)
UNIT_TAG = "headsr.unit"
CONTENT_TAG = "headsr.content"
_METRICS_PER_BATCH = 1000  # the server's own limits
_PARAMS_PER_BATCH = 100
_LONGEST_PARAM = 6000
_PATIENCE_SECONDS = 3.0


@dataclass(frozen=True)
class RunRecord:
    """One run to mirror: a trained model, a fit, a score or a check.

    ``unit`` names it for ever (``model/edsr``); ``params`` is plain data, nested blocks become dotted names;
    ``metrics`` are final numbers; ``history`` is a file of JSON lines ({"step": 10, "loss": 0.1}); ``tags`` hold what a
    run is searched by: ``annex_keys`` (a hash of the list), ``commit``.
    """

    unit: str
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    history: str | os.PathLike[str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Synced:
    """How many runs were copied, and how many were there already."""

    written: int
    unchanged: int


def keys_hash(keys: Sequence[str]) -> str:
    """One short name for a list of annex keys, whatever their order."""
    return hashlib.sha256("\n".join(sorted(keys)).encode()).hexdigest()[:16]


def record_training(
    name: str, *, history: str | os.PathLike[str], recipe: Mapping[str, Any], keys: Sequence[str], commit: str = ""
) -> RunRecord:
    """The run of one model (``edsr``) or fit (``method degradation dataset/scan_suffix``), with its plain recipe."""
    kind = "fit" if " " in name else "model"
    tags = {"annex_keys": keys_hash(keys), "commit": commit}
    return RunRecord(f"{kind}/{name.replace(' ', '/')}", params=recipe, history=history, tags=tags)


def record_scores(paths: Iterable[str | os.PathLike[str]], *, commit: str = "") -> list[RunRecord]:
    """One run per scored volume or set: the rows of all its files, of any family, as ``projected.head.psnr``."""
    files: dict[str, list[ScoreFile]] = {}
    for score in map(read_score_file, paths):
        files.setdefault(_scored(score.unit), []).append(score)
    return [_record_score(unit, scores, commit) for unit, scores in files.items()]


def _scored(unit: ScoredUnit) -> str:
    """What was scored, as a path; a set has no dataset, and one of all contrasts no suffix."""
    scan = f"{unit.scan}_{unit.suffix}" if unit.suffix else unit.scan
    return "/".join(filter(None, (unit.method, unit.degradation, unit.dataset, scan)))


def _record_score(unit: str, scores: Sequence[ScoreFile], commit: str) -> RunRecord:
    first, rows = scores[0], [row for score in scores for row in score.rows]
    said = {name: getattr(first, name) for name in ("profile", "seed", "data_range", "trained_on")}
    return RunRecord(
        unit=f"score/{unit}",
        params={**asdict(first.unit), **said},
        metrics={f"{row.variant}.{row.mask}.{row.metric}": float(row.value) for row in rows},
        tags={"annex_keys": keys_hash([first.source_key]), "commit": commit},
    )


def record_check(path: str | os.PathLike[str], *, name: str, commit: str = "") -> RunRecord:
    """The run of one check (``name`` as ``method degradation dataset/scan_suffix``): its residuals per view."""
    degradation, views, source_key = (
        read_as(kind, path, "headsr", key)
        for key, kind in {"degradation": str, "views": dict[str, dict[str, Any]], "source_key": str}.items()
    )
    return RunRecord(
        unit="check/" + name.replace(" ", "/"),
        params={"degradation": degradation},
        metrics=_numbers(views),
        tags={"annex_keys": keys_hash([source_key]), "commit": commit},
    )


def mirror_results(
    database: str | os.PathLike[str],
    *,
    record: str | os.PathLike[str],
    experiment: str,
    histories: Mapping[str, str | os.PathLike[str]],
    recipes: Mapping[str, Mapping[str, Any]],
    keys: Mapping[str, Sequence[str]],
    scores: Sequence[str | os.PathLike[str]],
    checks: Mapping[str, str | os.PathLike[str]],
    commit: str = "",
) -> Synced | None:
    """Mirror all results of a workflow, as ``sync_mlflow`` does; a file that cannot be read is a warning too.

    ``histories``, ``recipes`` (plain data) and ``keys`` (the annex keys that it was trained on) are by the name of what
    was trained: a model, or ``method degradation dataset/scan_suffix`` for a fit. ``checks`` are by volume, named so.
    ``record`` is a JSON file that says which database was written, or that none was; then ``failed_mirrors`` is one
    more.
    """
    synced = None
    try:
        runs = [
            *(
                record_training(
                    name, history=path, recipe=recipes.get(name, {}), keys=keys.get(name, ()), commit=commit
                )
                for name, path in histories.items()
            ),
            *record_scores(scores, commit=commit),
            *(record_check(path, name=name, commit=commit) for name, path in checks.items()),
        ]
    except (OSError, ValueError, KeyError) as error:
        _LOG.warning("MLflow was not updated: %s", error)
    else:
        synced = sync_mlflow(database, experiment=experiment, runs=runs)
    if synced is None:
        write_json(_failures_beside(record), {"failures": failed_mirrors(record) + 1})
    write_json(record, {"database": str(database), "synced": None if synced is None else asdict(synced)})
    return synced


def failed_mirrors(record: str | os.PathLike[str]) -> int:
    """How often mirroring to the database of a record failed so far, whatever became of it since."""
    try:
        return int(read_json(_failures_beside(record))["failures"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return 0


def _failures_beside(record: str | os.PathLike[str]) -> Path:
    return Path(record).with_name("mlflow-failures.json")


def mirror_trainings(
    database: str | os.PathLike[str],
    *,
    experiment: str,
    histories: Mapping[str, Sequence[str | os.PathLike[str]]],
    recipes: Mapping[str, Mapping[str, Any]],
    keys: Mapping[str, Sequence[str]],
    commit: str = "",
) -> Synced | None:
    """Mirror trainings and fits at any time, those that run as far as they are; one that has not begun has no run.

    ``histories`` are the files that each consists of (targets.histories_so_far), the rest is as in mirror_results.
    """
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for number, (name, paths) in enumerate(histories.items()):
            if lines := history_so_far(paths):
                history = Path(folder) / f"{number}.jsonl"
                write_history(history, lines)
                runs.append(
                    record_training(name, history=history, recipe=recipes[name], keys=keys.get(name, ()), commit=commit)
                )
        return sync_mlflow(database, experiment=experiment, runs=runs)


def sync_mlflow(database: str | os.PathLike[str], *, experiment: str, runs: Sequence[RunRecord]) -> Synced | None:
    """Copy runs into the SQLite database, the new and the changed ones only; None, with a warning, if that fails.

    A run is found again by the tag ``headsr.unit``; one whose ``headsr.content`` (the hash of everything in it) is the
    same and that is finished stays, any other is replaced: a run that was cut off is not finished. Never raises for a
    failure of tracking: MLflow missing, a locked or read-only database, a history that cannot be read.
    """
    try:
        _refuse_locked(Path(database))
        return _sync(Path(database).absolute(), experiment, runs)
    except Exception as error:  # a mirror: whatever goes wrong in it, results are whole without it
        _LOG.warning("MLflow was not updated (%s: %s); the results do not depend on it", type(error).__name__, error)
        return None


def _sync(database: Path, experiment: str, runs: Sequence[RunRecord]) -> Synced:
    with _quiet_and_quick():
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{database}")
        found = client.get_experiment_by_name(experiment)
        where = client.create_experiment(experiment) if found is None else found.experiment_id
        known = _known_runs(client, where)
        written = 0
        for record in runs:
            content = content_hash(record)
            old = known.get(record.unit, [])
            if any(state == (content, "FINISHED") for _, state in old):
                continue
            for run_id, _ in old:
                client.delete_run(run_id)
            _write(client, where, record, content)
            written += 1
    return Synced(written, len(runs) - written)


def content_hash(record: RunRecord) -> str:
    """A hash of everything that a run shows."""
    history = b"" if record.history is None else Path(record.history).read_bytes()
    shown = json.dumps([record.params, record.metrics, record.tags], sort_keys=True, default=str)
    return hashlib.sha256(shown.encode() + b"\0" + history).hexdigest()[:32]


def _known_runs(client: MlflowClient, experiment: str) -> dict[str, list[tuple[str, tuple[str, str]]]]:
    """Every run of the experiment by its unit: (run id, (content, status))."""
    known: dict[str, list[tuple[str, tuple[str, str]]]] = {}
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        for run in page:
            state = (run.data.tags.get(CONTENT_TAG, ""), run.info.status)
            known.setdefault(run.data.tags.get(UNIT_TAG, ""), []).append((run.info.run_id, state))
        token = page.token
        if not token:
            return known


def _write(client: MlflowClient, experiment: str, record: RunRecord, content: str) -> None:
    from mlflow.entities import Metric, Param

    when = int((time.time() if record.history is None else Path(record.history).stat().st_mtime) * 1000)
    tags = {name: str(value) for name, value in record.tags.items() if value}
    tags |= {UNIT_TAG: record.unit, CONTENT_TAG: content, "kind": record.unit.split("/")[0]}
    run = client.create_run(experiment, start_time=when, tags=tags, run_name=record.unit).info.run_id
    params = [Param(name, value) for name, value in flat(record.params).items()]
    metrics = [Metric(name, value, when, step) for name, value, step in _points(record)]
    for first in range(0, len(params), _PARAMS_PER_BATCH):
        client.log_batch(run, params=params[first : first + _PARAMS_PER_BATCH])
    for first in range(0, len(metrics), _METRICS_PER_BATCH):
        client.log_batch(run, metrics=metrics[first : first + _METRICS_PER_BATCH])
    client.set_terminated(run, end_time=when)


def _points(record: RunRecord) -> Iterator[tuple[str, float, int]]:
    """(name, value, step) of every number: the final ones at step 0, those of the history at theirs."""
    for name, value in record.metrics.items():
        yield name, value, 0
    if record.history is not None:
        for line in read_history(record.history):
            step = int(line.pop("step"))
            for name, value in _numbers(line).items():
                yield name, value, step


def flat(block: Mapping[str, Any], before: str = "") -> dict[str, str]:
    """Nested plain data as dotted names and text, for a place that knows no nesting."""
    result: dict[str, str] = {}
    for key, value in block.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            result.update(flat(value, f"{name}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, default=str)
            result[name] = text[:_LONGEST_PARAM]
    return result


def _numbers(block: Mapping[str, Any], before: str = "") -> dict[str, float]:
    """The numbers of nested plain data by dotted names; "inf" is a number too, text is not."""
    result: dict[str, float] = {}
    for key, value in block.items():
        if isinstance(value, Mapping):
            result.update(_numbers(value, f"{before}{key}."))
        elif isinstance(value, (int, float)) or value in ("inf", "-inf"):
            result[f"{before}{key}"] = float(value)
    return result


def _refuse_locked(database: Path) -> None:
    """Fail within seconds, before MLflow's own long retries, where nobody may write."""
    database.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(database, timeout=_PATIENCE_SECONDS)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()


@contextmanager
def _quiet_and_quick() -> Iterator[None]:
    """No telemetry; and no waiting for the disk after each of MLflow's several hundred transactions.

    Creating the database took 8.5 s with SQLite's default and takes 2 s so. After a loss of power it may have to be
    made anew, which costs nothing: it is a mirror.
    """
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_LOGGING_LEVEL="WARNING")
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def relax(connection: sqlite3.Connection, _: Any) -> None:
        connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", relax)
    try:
        yield
    finally:
        event.remove(Engine, "connect", relax)
