"""The folder of a run: its files and whether another may begin there. No torch here."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from kits.config import flat, plain
from kits.core.errors import KitsError
from kits.core.plain_files import misfit, read_object
from kits.core.sharding import launched, read_rank

if TYPE_CHECKING:
    from kits.config.schema.training import Train

CONFIG, LAST, BEST, METRICS, MANIFEST, LOCK = "config.yaml", "last.ckpt", "best.ckpt", "metrics.csv", "manifest.json", ".lock"
# Of a manifest what others than its reader go by.
MADE = {"finished": bool, "seconds": float, "steps": int, "epochs": int, "split": {str: [str]}}
PATIENCE = "callbacks.early_stopping.patience"
# resume=auto: go on with the run in run_dir where there is one, else begin it.
AUTO = "auto"
# Of the configuration what tells of the run's folder and of its begin, and not of the training.
PLACING = ("run_dir", "overwrite", "resume")
# What may be given beside resume=: how long to go on, where the same data is, what it runs on, how often it is saved.
ADJUSTABLE = (
    "trainer.max_epochs",
    "trainer.accelerator",
    "trainer.devices",
    "data.root",
    "data.cache",
    "data.boxes",
    "data.loader_workers",
    PATIENCE,
    "callbacks.checkpoint.every_steps",
    "callbacks.checkpoint.every_minutes",
)


def resumed_options(arguments: list[str]) -> Train | None:
    """Return the options of the run that `resume=RUN_FOLDER` names; None without one.

    Raises:
        KitsError: there is no run in the folder, its configuration is damaged, or a key is given that makes it another run.
    """
    if not any(argument.startswith("resume=") for argument in arguments):
        return None
    # Here and not above: --help needs neither of them, which take longer than all else that it does.
    from kits.config.composing import values_of, with_newer_keys
    from kits.config.schema import check, parse, schema_of
    from kits.config.schema.base import text

    given = values_of("train", arguments)
    folder = given.pop("resume", None)
    if folder == "":
        raise KitsError(f"resume=: no folder given; give the run's folder, {AUTO}, or null")
    if folder in (None, AUTO):
        return None
    written = read_config(Path(folder))
    try:
        before = with_newer_keys("train", written)
        began: Train = parse(schema_of("train"), before)  # it may be damaged or edited
    except KitsError as error:
        raise KitsError(f"resume={folder}: its {CONFIG} cannot be trained with ({error})") from error
    newer = {key: value for key, value in flat(before).items() if key not in flat(written)}
    if newer and not launched().number:
        print(f"resume={folder}: its {CONFIG} lacks {', '.join(newer)}, and goes on with the defaults: {text(newer)}")
    config = copy.deepcopy(before)
    for key, value in given.items():
        if key not in ADJUSTABLE:
            raise KitsError(f"{key}: cannot change in a run that goes on; beside resume= give only {', '.join(ADJUSTABLE)}")
        *parents, leaf = key.split(".")
        node = config
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    options: Train = check("train", {**config, "run_dir": folder, "resume": folder}, {})
    epochs, now = began.trainer.max_epochs, options.trainer.max_epochs
    # Then what was done so far depended on how many there are.
    if epochs != now and (options.scheduled or (options.stage == "fine" and options.training == "staged")):
        raise KitsError(f"trainer.max_epochs={now}: this run's schedule is laid out over {epochs} epochs; leave the key out")
    return options


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.yaml` of a run folder."""
    try:
        config = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    # Beside its own errors the reader raises those of numbers, dates and depth that it cannot make of a text.
    except (OSError, ValueError, AttributeError, RecursionError, yaml.YAMLError) as error:
        raise KitsError(
            f"resume={folder}: no run to go on with ({CONFIG} cannot be read); give a folder of kits.train"
        ) from error
    if wrong := misfit(config, {"stage": str, "trainer": {str: Any}}):
        raise KitsError(f"resume={folder}: its {CONFIG} is not a training's ({wrong}); give a folder of kits.train")
    return config


def settle(options: Train) -> Train:
    """Decide `resume=auto`, before torch is imported: a run's folder to go on with, or null.

    Raises:
        KitsError: a run is to begin in a folder that holds one, or the environment has ranks that are no numbers.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):  # Lightning reads some when it is imported
        read_rank(name)
    from kits.config.schema import parse
    from kits.config.schema.training import Train

    folder, config = Path(options.run_dir), plain(options)
    if options.resume == AUTO:
        continues = (folder / LAST).exists()
        if continues and options.trainer.precision == AUTO:  # what was chosen when the run began holds on
            config["trainer"]["precision"] = read_config(folder)["trainer"].get("precision")
        settled: Train = parse(Train, {**config, "resume": options.run_dir if continues else None})
        return settled
    if not options.resume and not options.overwrite:
        check_unused(folder)
    return options


def check_unused(folder: Path) -> None:
    """Refuse to begin in a folder that holds a run."""
    if not checkpoints(folder):
        return
    manifest = read_manifest(folder) or {}
    unfinished = not manifest.get("finished") and (folder / CONFIG).exists()
    what = f", which is not finished; give resume={folder} to go on with it," if unfinished else "; give"
    raise KitsError(f"run_dir={folder}: holds a run already{what} another run_dir=DIR, or overwrite=true")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of a run folder; None where there is none to read."""
    content = read_object(folder / MANIFEST)
    return content if content and not misfit(content, {key: form for key, form in MADE.items() if key in content}) else None


def checkpoints(folder: Path) -> list[Path]:
    """List the checkpoints in a folder, also those of Lightning where a cluster queues a job again.

    We write none of these (see `kits.training.trainer.environment_of`), but Lightning would begin a new run with them.
    """
    return [*filter(Path.exists, (folder / BEST, folder / LAST)), *folder.glob("hpc_ckpt_*.ckpt")]
