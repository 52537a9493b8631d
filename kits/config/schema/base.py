"""The model and the kinds of values that schemas are made of: strict, and no key but their own."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core.core_schema import CoreSchema, no_info_after_validator_function

from kits.core.errors import KitsError


class Options(BaseModel):
    """Options of one part; a wrong kind or an unknown key is refused, defaults stand in conf/."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), defer_build=True)


@dataclass(frozen=True)
class Meaning:
    """In an annotation: what it accepts, in words and by a test, where its type does not say so."""

    words: str
    test: Callable[[Any], bool] | None = None

    def __get_pydantic_core_schema__(self, kind: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Let pydantic test what fits the type."""
        return no_info_after_validator_function(self._judge, handler(kind)) if self.test else handler(kind)

    def _judge(self, value: Any) -> Any:
        if self.test and not self.test(value):
            raise ValueError(self.words)
        return value


def any_text(value: Any, judge: ValidatorFunctionWrapHandler) -> Any:
    """Accept the name of a file that is not UTF-8 too, which pydantic refuses."""
    return value if isinstance(value, str) and value else judge(value)


def as_given(value: Any, judge: ValidatorFunctionWrapHandler) -> Any:
    """Keep a whole number whole, which pydantic would make a float: it is written and hashed as given."""
    judge(value)
    return value


# A file or folder. On a command line its characters mean nothing to Hydra, see `kits.config.quoting`. A name that no file system
# takes is refused before hours are spent on what goes there.
A_PATH = Meaning(
    "a path, each name in it of at most 255 bytes", lambda path: all(len(os.fsencode(name)) <= 255 for name in Path(path).parts)
)

# Strict: YAML's `true` is no 1, and "3" no number. A whole number is a number.
Switch = Annotated[bool, Field(strict=True)]
Text = Annotated[str, Field(strict=True, min_length=1), WrapValidator(any_text)]
PathText = Annotated[Text, A_PATH]
# One that is written, which may be missing.
OutputFolder = Annotated[PathText, AfterValidator(lambda value, info: check_output(info.field_name, value))]
# One that is read, and that nothing makes before.
InputPath = Annotated[PathText, AfterValidator(lambda value, info: check_input(info.field_name, value))]
Whole = Annotated[int, Field(strict=True)]
Index = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
# What numpy's global generator takes; of any other Lightning makes 0.
Seed = Annotated[int, Field(strict=True, ge=0, lt=1 << 32), Meaning("a whole number from 0 to 4294967295")]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False), WrapValidator(as_given)]
Length = Annotated[Number, Field(ge=0)]
Positive = Annotated[Number, Field(gt=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Fraction = Annotated[Number, Field(ge=0, lt=1)]
Inside = Annotated[Number, Field(gt=0, lt=1)]


Window = Annotated[tuple[Number, Number], Meaning("two ascending numbers [low, high]", lambda pair: pair[0] < pair[1])]
Triple = tuple[Count, Count, Count]
PerLevel = Annotated[list[Triple], Field(min_length=1)]


def not_descending(pair: Sequence[float]) -> bool:
    """Tell whether a pair is [low, high] or [same, same]."""
    return pair[0] <= pair[1]


def text(value: Any, word: Callable[[str], str] = str) -> str:
    """Write a plain value as the command line takes it; `word` says how a text or a path is written."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(text(one, word) for one in value)}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{text(one, word)}" for key, one in value.items()) + "}"
    return word(str(value)) if isinstance(value, str | Path) else str(value)


def refuse(key: str, value: Any, what: str) -> KitsError:
    """Make the refusal of a value, for a schema to raise that finds values that do not go together."""
    return KitsError(f"{key}={text(value)}: {what}")


def check_input(key: str, path: str) -> str:
    """Refuse a file or folder that is not there, before hours are spent on what comes before it is read."""
    if not Path(path).exists():
        raise refuse(key, path, "no such file or folder; check the path")
    return path


def check_output(key: str, folder: str) -> str:
    """Refuse a folder to be written where a file lies, before hours are spent on what goes there."""
    there = next((path for path in (Path(folder), *Path(folder).parents) if os.path.lexists(path)), Path())
    if not there.is_dir():
        raise refuse(key, folder, f"{'' if there == Path(folder) else f'{there} '}is a file; give a folder")
    return folder
