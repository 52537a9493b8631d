"""Tell what pydantic refuses in one line: the key, what is wrong, and what it may be by the schema."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from kits.config.conf_files import choices_of, groups, nearest
from kits.config.schema.base import A_PATH, Meaning, text
from kits.core.errors import KitsError

# Keys whose value says which model the others belong to.
TAGS = ("name", "kind", "stage", "transform")
# What is wrong with a key itself is told before what is wrong with values.
ORDER = ("extra_forbidden", "union_tag_invalid", "union_tag_not_found", "missing")
# What `data` repeats of other groups is told under their own names.
REPEATED = ("data.split", "data.augmentation")
FEW = 12  # names that a message may list
# Lightning's options that are choices here.
INSTEAD = {"trainer.fast_dev_run": "debug=fast", "trainer.overfit_batches": "debug=overfit"}

Kind = tuple[Any, Sequence[Any]]


def refusal(error: ValidationError, schema: Any, config: Any, group: str = "") -> KitsError:
    """Tell the gravest of what pydantic has found in a configuration, or in its part `group`."""
    found = error.errors(include_url=False)
    first = min(found, key=lambda one: (ORDER.index(one["type"]) if one["type"] in ORDER else len(ORDER), found.index(one)))
    key, value, (kind, metadata) = place(first["loc"], schema, config)
    key = f"{group}.{key}".strip(".") or "configuration"
    for repeated in REPEATED:
        key = key.removeprefix("data.") if key.startswith(repeated) else key
    if first["type"] == "extra_forbidden":
        return KitsError(f"{key}: no such key{suggestion(key, keys_of(schema, config, f'{group}.' if group else ''))}")
    if first["type"].startswith("union_tag"):
        tag = first["ctx"]["discriminator"].strip("'")
        return wrong_name(f"{key}.{tag}".lstrip("."), value.get(tag) if isinstance(value, dict) else value, kind)
    meant = meaning(kind, metadata)
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return KitsError(f"{key}: no value given; give {meant}")
    return KitsError(f"{key}={text(value)}: give {meant}")


def place(loc: Sequence[int | str], schema: Any, config: Any) -> tuple[str, Any, Kind]:
    """Find where an error lies: its dotted key, the value there, and what it may be.

    Pydantic's location also names branches of unions, which are no keys; a list is told as a whole, unless of models.
    """
    fields = dict(reversed([*fields_of(schema, config)]))
    key, node = "", config
    for part in loc:
        name = f"{key}[{part}]" if isinstance(node, list) else f"{key}.{part}".lstrip(".")
        if isinstance(node, list):
            if name not in fields:
                break
            key, node = name, node[int(part)]
        elif isinstance(node, dict) and (part in node or name in fields):
            key, node = name, node.get(part)
    return key, node, fields.get(key, (schema, ()))


def fields_of(kind: Any, config: Any, prefix: str = "") -> Iterator[tuple[str, Kind]]:
    """List every dotted key that a configuration may have under its choices, with its kind."""
    kind, values = bare(kind), config if isinstance(config, dict) else {}
    inner: list[tuple[str, Kind, Any]] = []
    if get_origin(kind) is dict:
        inner = [(f"{prefix}{name}", (get_args(kind)[1], ()), value) for name, value in values.items()]
    elif get_origin(kind) is list and models_in(kind) and isinstance(config, list):
        inner = [(f"{prefix[:-1]}[{number}]", (get_args(kind)[0], ()), value) for number, value in enumerate(config)]
    elif get_origin(kind) is not list:
        for model in chosen(kind, config):
            for name, field in model.model_fields.items():
                inner.append((f"{prefix}{name}", (field.annotation, field.metadata), values.get(name)))
    for key, own, value in inner:
        yield key, own
        yield from fields_of(own[0], value, f"{key}.")


def bare(kind: Any) -> Any:
    """Take a kind without its metadata, and without None where it may be that."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, UnionType):
        others = [one for one in get_args(kind) if one is not type(None)]
        return bare(others[0]) if len(others) == 1 else kind
    return kind


def models_in(kind: Any) -> list[type[BaseModel]]:
    """List every model that a kind names."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for one in get_args(kind) for model in models_in(one)]


def chosen(kind: Any, config: Any) -> list[type[BaseModel]]:
    """List the models of a kind that fit a configuration's tags; all where it has none."""
    values = config if isinstance(config, dict) else {}
    return [
        model
        for model in models_in(kind)
        if all(values[tag] in tags_of(model, tag) for tag in TAGS if tag in values and tags_of(model, tag))
    ]


def tags_of(model: type[BaseModel], tag: str) -> tuple[Any, ...]:
    """List the names that a model goes by."""
    field = model.model_fields.get(tag)
    return get_args(field.annotation) if field and get_origin(field.annotation) is Literal else ()


def keys_of(kind: Any, config: Any, prefix: str = "") -> list[str]:
    """List every dotted key that a configuration may have, under the choices that it has made."""
    return list(dict.fromkeys(key for key, _ in fields_of(kind, config, prefix) if not key.endswith("]")))


def is_open(kind: Any, key: str) -> bool:
    """Tell whether a key lies in a part that takes any keys: the options of another command."""
    return any(bare(own) == dict[str, Any] for name, (own, _) in fields_of(kind, {}) if name == key.partition(".")[0])


def path_keys(kind: Any) -> list[str]:
    """List every dotted key that takes the path of a file or folder, under whatever choices."""
    return [key for key, (own, metadata) in fields_of(kind, {}) if any(holds(part, A_PATH) for part in (own, *metadata))]


def holds(kind: Any, mark: Meaning) -> bool:
    """Tell whether an annotation has a mark, at whatever depth."""
    return kind == mark or any(holds(part, mark) for part in get_args(kind))


def suggestion(key: str, known: Sequence[str]) -> str:
    """Suggest the key beside or elsewhere that was meant, or the few there are, or the nearest of all."""
    if key in INSTEAD:
        return f"; give {INSTEAD[key]}"
    if key in known:
        group = key.partition(".")[0]
        return f" under this choice of {group}; give {group}=... with one of {', '.join(choices_of(group))} too"
    known = [one for one in known if not one.startswith(REPEATED)]
    above, _, leaf = key.rpartition(".")
    beside = {one.rpartition(".")[2]: one for one in known if one.rpartition(".")[0] == above}
    close = [beside[name] for name in difflib.get_close_matches(leaf, list(beside), n=1)]
    elsewhere = [one for one in known if one.rpartition(".")[2] == leaf]
    if near := close + elsewhere if above else elsewhere + close:  # whoever names a group means a key of it
        return f"; did you mean {near[0]}?"
    return (
        f"; there are {', '.join(sorted(beside))}"
        if 0 < len(beside) <= FEW
        else nearest(key, [one for one in known if not key.startswith(f"{one}.")])
    )


def wrong_name(key: str, value: Any, kind: Any) -> KitsError:
    """Refuse a name that selects no model."""
    group, _, name = key.rpartition(".")
    names = [one for model in models_in(kind) for one in tags_of(model, name or key)]
    if group in groups():
        what = f"is chosen as a whole; give {group}=... with one of {', '.join(choices_of(group))}"
    else:
        what = f"give one of {', '.join(names)}"
    return KitsError(f"{key}={text(value)}: {what}")


def meaning(kind: Any, metadata: Sequence[Any] = ()) -> str:
    """Say in words what a kind of values is."""
    for one in metadata:
        if isinstance(one, Meaning):
            return one.words
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        more = [part for one in arguments[1:] for part in (one.metadata if isinstance(one, FieldInfo) else [one])]
        return meaning(arguments[0], [*more, *metadata])
    if origin in (Union, UnionType):
        return ", or ".join(dict.fromkeys(meaning(one) for one in sorted(arguments, key=lambda one: one is type(None))))
    if origin is Literal:
        return text(arguments[0]) if len(arguments) == 1 else f"one of {', '.join(map(text, arguments))}"
    if origin is tuple:
        return f"[{len(arguments)} times {meaning(arguments[0])}]"
    if origin is list:
        return f"[{meaning(arguments[0])}]"
    return {bool: "one of true, false", str: "a text", type(None): "null"}.get(kind) or number(kind, metadata)


def number(kind: Any, metadata: Sequence[Any]) -> str:
    """Say in words what a number within its bounds is; a group of keys where it is no number."""
    bounds = {name: getattr(one, name) for one in metadata for name in ("ge", "gt", "lt", "le") if hasattr(one, name)}
    if kind is int:
        least = bounds["gt"] + 1 if "gt" in bounds else bounds.get("ge")
        return "a whole number" if least is None else f"a whole number of {least} or more"
    if kind is float:
        words = {"ge": "of at least", "gt": "above", "lt": "below", "le": "of at most"}
        return f"a number {' and '.join(f'{words[name]} {bound:g}' for name, bound in bounds.items())}".strip()
    return "anything" if kind is Any else "keys with values"
