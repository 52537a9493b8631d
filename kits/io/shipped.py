"""The networks that `kits.export format=shipped` puts into the package, if this installation has any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from kits.config.schema import parse
from kits.config.schema.card import Card
from kits.core.errors import KitsError
from kits.core.plain_files import read_json

FOLDER = Path(__file__).resolve().parents[1] / "shipped"
# In the place of a checkpoint's path.
WORD = "shipped"
CARD, TEXT = "card.json", "card.md"
NOTICE = "networks: those that come with kits; research use only, not a medical device (python -m kits.show_model)"
NONE_HERE = "no networks come with this installation; train them (python -m kits.train) and give coarse=CKPT fine=CKPT"
DAMAGED = "install kits again, or give coarse=CKPT fine=CKPT"


def network_files(given: Mapping[str, str | Sequence[str] | None]) -> dict[str, list[Path]]:
    """List the files of each stage: those that are given, or those that come with kits where none is.

    Args:
        given: by stage a path, several that are averaged, the word `shipped`, or None.

    Raises:
        KitsError: one stage has no checkpoint, or none come with this installation.
    """
    lacking = [stage for stage, paths in given.items() if paths is None]
    if lacking and len(lacking) < len(given):
        raise KitsError(
            f"{lacking[0]}: no checkpoint given; add {lacking[0]}=CKPT, or leave all out for those that come with kits"
        )
    found: dict[str, list[Path]] = {}
    for stage, paths in given.items():
        listed, own = [paths or WORD] if isinstance(paths, str | None) else paths, FOLDER / f"{stage}.safetensors"
        if WORD in listed:
            check_files(FOLDER, read_card(FOLDER), [own.name])
        found[stage] = [own if one == WORD else Path(one) for one in listed]
    return found


def read_card(folder: Path) -> Card:
    """Read card.json, which is written last.

    Raises:
        KitsError: it is not there, or is damaged.
    """
    path = folder / CARD
    if not path.is_file():
        raise KitsError(NONE_HERE if folder == FOLDER else f"{path}: no such file; kits.export format=shipped writes one")
    content = read_json(path, {}, f"{CARD} of networks that come with kits", DAMAGED)
    try:
        card: Card = parse(Card, content)
    except KitsError as error:
        raise KitsError(f"{path}: damaged or edited ({error}); {DAMAGED}") from error
    return card


def describe(given: str | None) -> str:
    """Tell a folder's model card, files and origins; None is the folder that comes with kits.

    Raises:
        KitsError: it holds none, or a file is damaged.
    """
    folder = FOLDER if given is None else Path(given)
    card = read_card(folder)
    check_files(folder, card)
    lines = [(folder / TEXT).read_text(encoding="utf-8").strip(), "", f"kits {card.kits_version}, {card.written}, {folder}"]
    lines += [f"  {name}: {file.bytes / 1e6:.2f} MB, SHA-256 {file.sha256}" for name, file in card.files.items()]
    for stage, origin in card.origins.items():
        cases = "cases that they do not name" if origin.trained_on is None else f"{len(origin.trained_on)} cases"
        count, digests = len(origin.checkpoints), ", ".join(origin.checkpoints)
        lines.append(f"  {stage}: of {count} checkpoint(s) trained on {cases}, SHA-256 {digests}")
    same = card.agreement
    lines.append(f"  labels against those of the checkpoints: kidney Dice {same.kidney:.4f}, tumor Dice {same.tumor:.4f}")
    return "\n".join(lines)


def check_files(folder: Path, card: Card, names: Sequence[str] | None = None) -> None:
    """Hold files, or all of a card, against their digests.

    Raises:
        KitsError: one is not there or is not the one that was written.
    """
    for name in card.files if names is None else names:
        told = dict(card.files).get(name)  # type: ignore[call-overload]
        try:
            content = (folder / name).read_bytes()
        except OSError as error:
            raise KitsError(f"{folder / name}: cannot be read ({error.strerror}); {DAMAGED}") from error
        if told is None or sha256(content).hexdigest() != told.sha256:
            raise KitsError(f"{folder / name}: damaged or edited (its SHA-256 is not that of {CARD}); {DAMAGED}")
