"""The files of `kits/shipped/`: networks in half precision, the model card, their origins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import torch
from torch import nn

from kits import __version__
from kits.config.schema.commands import Export
from kits.config.schema.exported import Exported, SegmenterOptions
from kits.core.errors import KitsError
from kits.core.labels import TUMOR
from kits.inference.members import agreed
from kits.inference.segmenter import Segmenter
from kits.io import make_folder, read_volume, whole_file, write_json
from kits.io.shipped import CARD, TEXT
from kits.metrics.overlap import dice
from kits.models.checkpoint import load_network
from kits.models.plain_weights import to_bytes

MOST_BYTES = 15_000_000
# Dice of kidneys between the files' labels and the checkpoints'. Rounding to 16 bits moves single voxels of an outline; networks
# whose average is no network any more, as those of two random beginnings, agree in nothing.
LEAST_SAME = 0.98


def ship(options: Export, given: Mapping[str, Sequence[Path]]) -> None:
    """Write both networks, card.md and, last of all, card.json into `options.output`.

    Raises:
        KitsError: a file is missing or too large, or the files' labels of the scan are not the checkpoints'.
    """
    folder, files = Path(options.output), {}
    try:
        files[TEXT] = Path(str(options.card)).read_bytes()
    except OSError as error:
        raise KitsError(f"card={options.card}: cannot be read ({error.strerror}); give the model card as Markdown") from error
    origins = {}
    for stage, paths in given.items():
        network, settings = averaged(paths, stage)
        files[f"{stage}.safetensors"] = to_bytes(network, settings, half=True)
        digests = [sha256(path.read_bytes()).hexdigest() for path in paths]
        origins[stage] = {"checkpoints": digests, "trained_on": settings.trained_on}
    if (total := sum(map(len, files.values()))) > MOST_BYTES:
        raise KitsError(
            f"{total / 1e6:.1f} MB: what comes with kits has at most {MOST_BYTES / 1e6:g} MB; train narrower networks"
        )
    make_folder(folder, "output")
    (folder / CARD).unlink(missing_ok=True)  # without it the folder counts as empty
    for name, content in files.items():
        with whole_file(folder / name, Path(name).suffix) as temporary:
            temporary.write_bytes(content)
    volume, exact = read_volume(Path(str(options.scan))), SegmenterOptions(precision="32")
    exported = {stage: [folder / f"{stage}.safetensors"] for stage in given}
    theirs, ours = (
        Segmenter.load(pair["coarse"], pair["fine"], "cpu", exact).segment(volume).labels for pair in (given, exported)
    )
    if not theirs.any():
        raise KitsError(f"scan={options.scan}: the checkpoints find no kidney in it, so nothing can be compared; give another")
    kidney, tumor = dice(theirs > 0, ours > 0), dice(theirs == TUMOR, ours == TUMOR)
    if kidney < LEAST_SAME:
        raise KitsError(
            f"the files' labels of {options.scan} are not the checkpoints' (kidney Dice {kidney:.3f}, at least {LEAST_SAME});"
            " give one checkpoint a stage, or such as began from the same weights"
        )
    agreement = {"shape": list(theirs.shape), "kidney": kidney, "tumor": tumor}
    told = {name: {"bytes": len(content), "sha256": sha256(content).hexdigest()} for name, content in files.items()}
    card = {"kits_card": 1, "kits_version": __version__, "written": f"{datetime.now(UTC):%Y-%m-%d}", "files": told}
    write_json(folder / CARD, {**card, "origins": origins, "agreement": agreement})
    print(
        f"{folder}: {total / 1e6:.2f} MB; labels against those of the checkpoints:"
        f" kidney Dice {kidney:.4f}, tumor Dice {tumor:.4f}",
        flush=True,
    )


def averaged(paths: Sequence[Path], stage: str) -> tuple[nn.Module, Exported]:
    """Average the weights of several checkpoints of a stage (Wortsman et al., arXiv 2203.05482).

    Raises:
        KitsError: one cannot be loaded, or they differ in their networks or settings.
    """
    loaded = [load_network(path, stage, "cpu") for path in paths]
    network, settings = loaded[0]
    agreed([one for _, one in loaded], stage)
    if any(one.model != settings.model for _, one in loaded):
        raise KitsError(f"{stage}: these checkpoints are of different networks; average only such of one model")
    states = [one.state_dict() for one, _ in loaded]
    mean = {
        name: torch.stack([state[name] for state in states]).mean(dim=0) if first.is_floating_point() else first
        for name, first in states[0].items()
    }
    network.load_state_dict(mean)
    known = [one.trained_on for _, one in loaded]
    trained_on = None if None in known else sorted({case for cases in known for case in cases or ()})
    return network, settings.model_copy(update={"trained_on": trained_on})
