"""The commands for people. The work itself is done by Snakemake."""

from __future__ import annotations

import argparse
import io
import logging
import os
import select
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from headsr import __version__
from headsr.annex import leaving_when_told
from headsr.files import unwritable
from headsr.words import PlainFormatter, shown

if TYPE_CHECKING:
    from headsr.sr.run import Request

OK, FAILED, USAGE, REJECTED, RESOURCES, INTERRUPTED = 0, 1, 2, 3, 4, 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done, 1 failed, 2 wrong use or configuration, 3 input rejected, 4 too little memory, 75 interrupted (Ctrl-C,
    SIGTERM or SIGHUP): the same command goes on.
    """
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        if _is_read(sys.stdout):
            print(f"headsr: {error}", file=sys.stderr)
            return FAILED
        # Who read the output has ended, as `head` does. What is left of it must not fail once more at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _run(arguments: Sequence[str] | None) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be UTF-8, nor a terminal know every letter
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    logging.lastResort.setFormatter(PlainFormatter())
    warnings.showwarning = _show_warning
    try:
        with _surroundings_of_children(), leaving_when_told():
            return options.command(options)
    except BrokenPipeError:
        raise
    except (KeyboardInterrupt, SystemExit):
        print("headsr: interrupted; run the same command again to go on", file=sys.stderr)
        return INTERRUPTED
    except ValueError as error:
        print(f"headsr: {_words_of(error)}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"headsr: {_words_of(unwritable(error, 'what it writes') or error)}", file=sys.stderr)
        return FAILED


def _show_warning(message: Warning | str, *where: object) -> None:
    """One line, without the place in the code, which is nothing to who uses it."""
    print(f"warning: {_words_of(message)}", file=sys.stderr, flush=True)


@contextmanager
def _surroundings_of_children() -> Iterator[None]:
    """What the programs that a command starts (git-annex, datalad, snakemake) find in their environment, while it runs.

    They live beside the interpreter that runs this, and a random.py in the folder that it is called in is no part of
    their library.
    """
    before = dict(os.environ)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    os.environ["PYTHONSAFEPATH"] = "1"
    _keep_caches_where_they_can_be_written()
    try:
        yield
    finally:
        for name in ("PATH", "PYTHONSAFEPATH", "XDG_CACHE_HOME"):
            os.environ.pop(name, None)
            os.environ.update({name: before[name]} if name in before else {})


def _keep_caches_where_they_can_be_written() -> None:
    """Snakemake and DataLad keep caches in the home, which on some machines cannot be written: then in the project."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))
    there = next(place for place in (usual, *usual.parents) if os.path.exists(place))
    if not (usual.is_absolute() and there.is_dir() and os.access(there, os.W_OK)):
        os.environ["XDG_CACHE_HOME"] = os.path.abspath(".snakemake/cache")


def _is_read(stream: TextIO) -> bool:
    """Whether somebody still reads what is written to a stream of the system's."""
    watched = select.poll()
    watched.register(stream.fileno(), 0)  # of errors the system tells unasked
    return not any(event & select.POLLERR for _, event in watched.poll(0))


def _words_of(error: Exception | str) -> str:
    """What an error says, or a text, whatever it quotes of files and datasets; its own lines stay lines."""
    return shown(str(error), keep="\n\t")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headsr", description="Super-resolution of human head scans.")
    parser.add_argument(
        "--version", action="version", version=f"headsr {__version__} (research use only, not for clinical use)"
    )
    # An option's beginning is none: fMRIPrep's --mem, in MB, would be our --mem-gb.
    whole_words = partial(argparse.ArgumentParser, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=whole_words)

    pin = commands.add_parser(
        "pin", help="list every scan and label map of the datasets with its content key in its table"
    )
    pin.add_argument("datasets", nargs="*", metavar="DATASET", help="only these datasets (default: all)")
    pin.add_argument("--configfile", nargs="*", default=[], help="changes laid over config/config.yaml")
    pin.set_defaults(command=_pin)

    check = commands.add_parser("check", help="say whether scans can be used, by what, and what they show")
    check.add_argument("scans", nargs="+", metavar="SCAN", help="NIfTI files, or folders of them")
    check.set_defaults(command=_check)

    verify = commands.add_parser("verify", help="say which results do not follow from table, recipes and code")
    verify.add_argument(
        "made", nargs="*", metavar="OUT", help="what headsr sr made, folders or files (default: the workflow's results)"
    )
    verify.add_argument(
        "--deep", action="store_true", help="read all content and compare hashes; of what headsr sr made it always does"
    )
    verify.add_argument("--configfile", nargs="*", default=[], help="changes laid over config/config.yaml")
    verify.set_defaults(command=_verify)

    sr = commands.add_parser("sr", help="super-resolve the scans of one head, or each scan of a BIDS folder by itself")
    sr.add_argument(
        "scans", nargs="+", metavar="IN", help="NIfTI files of one head and contrast, the first says where; or a folder"
    )
    sr.add_argument(
        "out", metavar="OUT", help="X.nii.gz (above 512 voxels a side X.ome.zarr, and a preview); or a folder"
    )
    voxels = sr.add_mutually_exclusive_group()
    voxels.add_argument("--voxel", type=float, nargs="+", metavar="MM", help="voxel size in mm: one number or three")
    voxels.add_argument("--scale", type=float, nargs="+", metavar="S", help="times as many voxels: one number or three")
    voxels.add_argument("--shape", type=int, nargs="+", metavar="N", help="voxels: one number or three")
    slices = sr.add_mutually_exclusive_group()
    slices.add_argument("--thickness", type=float, metavar="MM", help="of the slices, where no sidecar says it")
    slices.add_argument("--gap", type=float, metavar="MM", help="between the slices: 0 if there is none")
    sr.add_argument("--profile", choices=("box", "gaussian"), default="box", help="of the slices (default: box)")
    sr.add_argument(
        "--method", default="unrolled", help="unrolled, tikhonov, tv, average or spline (default: unrolled)"
    )
    sr.add_argument(
        "--report", action="store_true", help="one page beside OUT: what was added, measured, and is unsure"
    )
    sr.add_argument("--mem-gb", type=_gigabytes, help="what it may take at most (default: most of what is free)")
    sr.add_argument("--force", action="store_true", help="take scans that the weights were not trained on")
    sr.add_argument("--dry-run", action="store_true", help="say what it would make and take, and make nothing")
    for label, what in (("participant", "people"), ("session", "sessions")):
        sr.add_argument(
            f"--{label}-label",
            f"--{label}_label",
            nargs="+",
            default=[],
            metavar="LABEL",
            help=f"of a BIDS folder: only these {what}, with or without {label[:3]}-",
        )
    sr.add_argument("--workers", type=_count, default=1, help="of a BIDS folder: scans at once (default: 1)")
    sr.set_defaults(command=_super_resolve)

    simulate = commands.add_parser("simulate", help="make a dataset of heads with known truth from label maps")
    simulate.add_argument("label_maps", metavar="DSEG_FOLDER", help="folder of _dseg.nii.gz files with their table")
    simulate.add_argument("dataset", metavar="OUT", help="the DataLad BIDS dataset to make")
    simulate.add_argument("--heads", type=int, default=1, help="how many people (default: 1)")
    simulate.add_argument("--suffix", action="append", help="T1w, T2w, PDw or FLAIR; may be repeated (default: T1w)")
    simulate.add_argument(
        "--voxel-mm", type=float, nargs="+", default=[1.0], help="one size, or one along each of x, y, z (default: 1)"
    )
    simulate.add_argument("--lesions", default="none", help="none, mild, moderate or severe (default: none)")
    simulate.add_argument("--seed", type=int, default=0, help="another seed makes other people (default: 0)")
    simulate.set_defaults(command=_simulate)

    render = commands.add_parser("render", help="render a fitted field at any size")
    render.add_argument("field", metavar="FIELD", help="the field's safetensors file")
    render.add_argument("out", metavar="OUT", help="X.ome.zarr; X.nii.gz (at most 512 a side) and X.json lie beside it")
    size = render.add_mutually_exclusive_group()
    size.add_argument("--shape", type=int, nargs="+", metavar="N", help="voxels: one number, or one along each axis")
    size.add_argument("--voxel", type=float, nargs="+", metavar="MM", help="voxel size in mm: one number or three")
    size.add_argument("--scale", type=float, nargs="+", metavar="S", help="times as many voxels: one number or three")
    render.add_argument(
        "--roi", type=float, nargs=6, metavar="MM", help="only this box: xmin ymin zmin xmax ymax zmax in mm (RAS)"
    )
    render.add_argument(
        "--dtype", default="float32", help="float32, float16, or uint16 with a slope (default: float32)"
    )
    render.add_argument(
        "--scans",
        nargs="+",
        default=[],
        metavar="SCAN",
        help="the low-resolution scans: at a scale that is not whole, say how well the volume agrees with them",
    )
    render.add_argument("--keep-air", action="store_true", help="render the air around the head as well")
    render.add_argument(
        "--mem-gb", type=_gigabytes, default=4.0, help="what all workers may take together (default: 4)"
    )
    render.add_argument("--workers", type=_count, help="how many chunks at once (default: one for each core)")
    render.add_argument(
        "--scheduler",
        choices=("threads", "local", "slurm"),
        default="threads",
        help="threads of this process, processes of this machine, or SLURM jobs (default: threads)",
    )
    render.add_argument(
        "--part", metavar="I/N", help="only every N-th shard from the I-th; once more without it at last"
    )
    render.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    render.add_argument("--precision", default="fp32", help="of a network's hidden layers: fp32, bf16 or fp16")
    render.add_argument("--dry-run", action="store_true", help="say what it would take, and do nothing")
    render.set_defaults(command=_render)

    view = commands.add_parser("view", help="look at one volume, or at two side by side, in the browser")
    view.add_argument("stores", nargs="+", metavar="STORE", help="one or two .ome.zarr folders")
    view.add_argument("--port", type=int, default=0, help="of the local server (default: any that is free)")
    view.set_defaults(command=_view)

    models = commands.add_parser("models", help="list, verify or make the weights that ship, or import those of others")
    of_models = models.add_subparsers(required=True, metavar="WHAT", parser_class=whole_words)
    listed = of_models.add_parser("list", help="what ships: kind, training, size, license, and how good it is")
    verified = of_models.add_parser("verify", help="say whether weights and cards are whole and belong together")
    verified.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    shipped = of_models.add_parser("ship", help="make weights and card from a finished training")
    shipped.add_argument("model", metavar="MODEL_FOLDER", help="such as results/models/edsr")
    shipped.add_argument("facts", metavar="FACTS", help="YAML of what no file of the training says (docs/models.md)")
    shipped.add_argument("--name", help="that the weights ship under (default: that of the folder)")
    shipped.add_argument("--configfile", nargs="*", default=[], help="changes laid over config/config.yaml")
    imported = of_models.add_parser("import", help="make weights and card from a checkpoint that others published")
    imported.add_argument("file", metavar="FILE", help="such as RealESRGAN_x4plus.pth (docs/models.md: what is taken)")
    imported.add_argument("--folder", required=True, help="that weights and card go to, for recipes of kind shipped")
    imported.add_argument("--license", required=True, metavar="WORDS", help="under which the weights may be used")
    imported.add_argument("--name", help="that the weights get (default: that of the file)")
    imported.add_argument("--trained-on", metavar="WORDS", help="what they saw, if you know it")
    imported.add_argument("--citation", metavar="WORDS", help="what to cite (default: the paper of the network)")
    imported.set_defaults(command=_import_model)
    for command, run in ((listed, _list_models), (verified, _verify_models), (shipped, _ship_model)):
        command.add_argument("--folder", help="where weights and cards lie (default: in the package)")
        command.set_defaults(command=run)

    mlflow = commands.add_parser("mlflow", help="mirror all trainings and fits to MLflow, also those that run")
    mlflow.add_argument("--configfile", nargs="*", default=[], help="changes laid over config/config.yaml")
    mlflow.set_defaults(command=_mlflow)

    demo = commands.add_parser("demo", help="make the embedded dataset and run everything on it")
    demo.add_argument("--cores", type=_count, help="how many processor cores (default: all that it may use)")
    demo.set_defaults(command=_demo)
    return parser


def _pin(options: argparse.Namespace) -> int:
    from headsr.recipes import Dataset, LabelMaps, config_files, load_config, load_recipes
    from headsr.sourcedata import pin_datasets, pin_label_maps

    config = load_config(options.configfile)
    datasets = load_recipes(config, config_files(options.configfile)).datasets
    unknown = set(options.datasets) - set(datasets)
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not in {config['recipes']['datasets']}. Add it there first")
    for kind, pin, table in ((Dataset, pin_datasets, "scans"), (LabelMaps, pin_label_maps, "labelmaps")):
        known = {name: dataset for name, dataset in datasets.items() if isinstance(dataset, kind)}
        chosen = [name for name in options.datasets or known if name in known]
        if chosen:
            print(pin(known, clones=config["clones"], table=config[table], only=chosen).text())
    return OK


def _check(options: argparse.Namespace) -> int:
    from headsr.verdict import judge, scans_at

    code = OK
    for place in options.scans:
        found = scans_at(place)
        for words in found.left_out(Path(place)):
            print(f"left out: {words}")
        for outcome in found.unclear:
            print(f"REJECTED {_words_of(outcome.words)}")
            code = REJECTED
        for path in found.scans:
            verdict = judge(path)
            print(_words_of(verdict.text()), flush=True)
            code = REJECTED if verdict.refused else code
    return code


def _verify(options: argparse.Namespace) -> int:
    from headsr.verify import State

    if options.made:
        from headsr.sr.verify import AGAIN, verify_made

        verdict = verify_made(options.made)
        print("\n".join([verdict.summary(), *([AGAIN] if verdict.findings else [])]))
    else:
        from headsr.plan import planned_jobs
        from headsr.recipes import load_config
        from headsr.verify import verify_results

        config = load_config(options.configfile)
        verdict = verify_results(planned_jobs(options.configfile), config["results"], deep=options.deep)
        print(verdict.text())
    wrong = any(finding.state != State.ORPHAN for finding in verdict.findings)
    return FAILED if wrong else OK


def _super_resolve(options: argparse.Namespace) -> int:
    from headsr.sr.cost import ResourcesError, memory_for
    from headsr.sr.given import Slices
    from headsr.sr.outputs import result_at
    from headsr.sr.run import OutsideTrainingError, Request, foretell, super_resolve
    from headsr.sr.target import Size
    from headsr.volumes import VolumeError

    request = Request(
        scans=tuple(map(Path, options.scans)),
        named=partial(result_at, options.out),
        slices=Slices(options.thickness, options.gap, options.profile),
        size=Size(options.voxel, options.scale, options.shape),
        method=options.method,
        memory=memory_for(options.mem_gb),
        force=options.force,
        report=options.report,
    )
    if len(request.scans) == 1 and any(request.scans[0].glob("sub-*")):
        return _super_resolve_dataset(request, options)
    try:
        foretold = foretell(request)
        print(foretold.words(request.memory), flush=True)
        if not options.dry_run:
            super_resolve(request, foretold)
    except (VolumeError, OutsideTrainingError) as error:
        print(f"REJECTED {_words_of(error)}", file=sys.stderr)
        return REJECTED
    except (ResourcesError, MemoryError) as error:
        print(f"headsr: {_words_of(error) or 'memory ran out'}", file=sys.stderr)
        return RESOURCES
    except BrokenPipeError:
        raise
    except (OSError, FloatingPointError, RuntimeError) as error:
        print(f"headsr: {_words_of(error)}", file=sys.stderr)
        return FAILED
    return OK


def _super_resolve_dataset(asked: Request, options: argparse.Namespace) -> int:
    from headsr.sr.dataset import scans_in, super_resolve_dataset

    source = asked.scans[0]
    found = scans_in(source, participants=options.participant_label, sessions=options.session_label)
    print(f"{source}: {len(found.scans)} scans, by {asked.method} into {options.out}", flush=True)
    for words in found.left_out(source):
        print(f"left out: {words}")
    if options.dry_run:
        print("\n".join([*map(str, found.scans), *(f"REJECTED {outcome.words}" for outcome in found.unclear)]))
        return OK
    outcomes = super_resolve_dataset(found, options.out, asked, source=source, workers=options.workers)
    bad = [outcome for outcome in outcomes if outcome.state in ("rejected", "failed")]
    print(f"{len(outcomes) - len(bad)} of {len(outcomes)} scans are done", flush=True)
    for outcome in bad:
        print(f"{outcome.state.upper()} {outcome.words}", file=sys.stderr)
    return FAILED if bad else OK


def _simulate(options: argparse.Namespace) -> int:
    from headsr.simulate.dataset import make_simulated_dataset

    voxel_mm = options.voxel_mm * 3 if len(options.voxel_mm) == 1 else options.voxel_mm
    make_simulated_dataset(
        options.label_maps,
        options.dataset,
        heads=options.heads,
        suffixes=tuple(dict.fromkeys(options.suffix or ["T1w"])),
        voxel_mm=tuple(voxel_mm),
        lesions=options.lesions,
        seed=options.seed,
    )
    return OK


def _render(options: argparse.Namespace) -> int:
    from headsr.fields.load import load_field
    from headsr.machine import cores
    from headsr.render.field import Manner, plan_render, render_field
    from headsr.render.plan import target_grid
    from headsr.render.publish import outputs_beside

    outputs = outputs_beside(options.out)
    size = {"shape": options.shape, "voxel_mm": options.voxel, "scale": options.scale, "box_mm": options.roi}
    how = {"device": options.device, "precision": options.precision}
    manner = Manner(
        dtype=options.dtype,
        skip_air=not options.keep_air,
        workers=options.workers or cores(),
        memory_bytes=int(options.mem_gb * 2**30),
        scheduler=options.scheduler,
        part=_part(options.part),
    )
    if options.dry_run:
        field = load_field(options.field, **how)
        grid = target_grid(field.grid, **size)
        print(plan_render(field, outputs.name, grid=grid, scans=options.scans, manner=manner))
        return OK
    try:
        render_field(options.field, outputs, scans=options.scans, manner=manner, **how, **size)
    except BrokenPipeError:
        raise
    except (OSError, FloatingPointError, RuntimeError) as error:  # the last: SLURM or torch, in words of their own
        print(f"headsr: {_words_of(error)}", file=sys.stderr)
        return FAILED
    return OK


def _view(options: argparse.Namespace) -> int:
    from headsr.view.server import serve

    serve(options.stores, port=options.port)
    return OK


def _list_models(options: argparse.Namespace) -> int:
    from headsr.models.card import PACKAGE, shipped_models, table_of

    folder = options.folder or PACKAGE
    cards = shipped_models(folder)
    print(table_of(cards) if cards else f"{folder}: no weights ship here")
    return OK


def _verify_models(options: argparse.Namespace) -> int:
    from headsr.models.card import PACKAGE, shipped_names
    from headsr.models.shipped import verify_shipped
    from headsr.weights import StateError

    folder = options.folder or PACKAGE
    names, code = options.names or shipped_names(folder), OK
    for name in names:
        try:
            print(f"OK {name}: {verify_shipped(name, folder=folder)}")
        except StateError as error:
            print(f"FAILED {name}: {_words_of(error)}")
            code = FAILED
    if not names:
        print(f"{folder}: no weights ship here")
    return code


def _ship_model(options: argparse.Namespace) -> int:
    from headsr.models.card import PACKAGE, table_of
    from headsr.models.ship import read_facts, ship
    from headsr.recipes import config_files, load_config, load_datasets

    name, deltas = options.name or Path(options.model).resolve().name, options.configfile
    card = ship(
        options.model,
        read_facts(options.facts),
        name=name,
        datasets=load_datasets(load_config(deltas), config_files(deltas)),  # a recipe may name what ships only now
        folder=options.folder or PACKAGE,
    )
    print(table_of({name: card}))
    return OK


def _import_model(options: argparse.Namespace) -> int:
    from headsr.models.card import NOT_KNOWN, table_of
    from headsr.models.imported import import_model

    name = options.name or Path(options.file).stem
    card = import_model(
        options.file,
        name=name,
        folder=options.folder,
        license=options.license,
        trained_on=options.trained_on or NOT_KNOWN,
        citation=options.citation or "",
    )
    print(f"{options.file}: {card.imported['layout']}")
    print(table_of({name: card}))
    return OK


def _mlflow(options: argparse.Namespace) -> int:
    from headsr import targets
    from headsr.labelmaps import read_maps
    from headsr.provenance import commit_at
    from headsr.recipes import config_files, load_config, load_recipes, plain
    from headsr.scans import read_scans
    from headsr.training.tracking import mirror_trainings

    config = load_config(options.configfile)
    recipes = load_recipes(config, config_files(options.configfile))
    scans, maps = read_scans(config["scans"]), read_maps(config["labelmaps"])
    units = targets.all_units(config["tables"], recipes, scans)
    models = targets.models_of(config["tables"], recipes)
    synced = mirror_trainings(
        config["mlflow"],
        experiment=f"headsr {config['results']}",
        histories=targets.histories_so_far(config["results"], models, units, recipes),
        recipes=plain(targets.recipes_of_training(models, units, recipes)),
        keys=targets.keys_of_training(models, units, recipes, scans, maps),
        commit=commit_at("."),
    )
    if synced is None:
        return FAILED
    print(f"{config['mlflow']}: {synced.written} runs written, {synced.unchanged} are as they were")
    return OK


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number of at least 1")
    return int(text)


def _gigabytes(text: str) -> float:
    with suppress(ValueError):
        if 0 < float(text) < 1e9:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r}: must be a number of GB above 0, as 4 or 0.5")


def _part(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    index, slash, number = text.partition("/")
    if not (slash and index.isdecimal() and number.isdecimal() and 1 <= int(index) <= int(number)):
        raise ValueError(f"--part {text}: must be I/N with 1 <= I <= N, as 3/16")
    return int(index), int(number)


def _demo(options: argparse.Namespace) -> int:
    from headsr.demo import run_demo
    from headsr.machine import cores

    return run_demo(cores=options.cores or cores())


if __name__ == "__main__":
    sys.exit(main())
