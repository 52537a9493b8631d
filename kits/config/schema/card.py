"""Schema of card.json, which stands beside the networks that come with the package."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kits.config.schema.base import Count, Options, Share, Text

Sha256 = Annotated[str, Field(strict=True, pattern="^[0-9a-f]{64}$")]


class ShippedFile(Options):
    """The size and the SHA-256 of a file."""

    bytes: Count
    sha256: Sha256


class Origin(Options):
    """The checkpoints of a stage; `trained_on` is None where they do not say."""

    checkpoints: Annotated[list[Sha256], Field(min_length=1)]
    trained_on: list[Text] | None


class SameLabels(Options):
    """Dice between the labels of the files and those of the checkpoints they were made of, on one scan."""

    shape: tuple[Count, Count, Count]
    kidney: Share
    tumor: Share


class Card(Options):
    """card.json."""

    kits_card: Literal[1]
    kits_version: Text
    written: Text
    files: dict[Literal["card.md", "coarse.safetensors", "fine.safetensors"], ShippedFile]
    origins: dict[Literal["coarse", "fine"], Origin]
    agreement: SameLabels
