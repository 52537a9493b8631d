"""The files of KiTS19 and where each is kept."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kits.config.schema.commands import Download
from kits.core.errors import KitsError
from kits.data.index import IMAGE_NAME, LABEL_NAME, RECORDS_NAME

GRAMMAR = "give all, train, a number, a range such as 0-41, or a list such as [3,160]"


@dataclass(frozen=True)
class RemoteFile:
    """One file: its name below the output folder, its address, and how to speak of its server."""

    name: str
    url: str
    server: str  # the address that the user configured, without credentials
    remedy: str  # what to do when the server does not have the file
    path: str | None = None  # in the hub's repository; None where it is kept elsewhere


def list_files(options: Download) -> list[RemoteFile]:
    """List the files of the configured cases, case by case, after the records of all.

    Raises:
        KitsError: `cases` cannot be understood or names a case that the data set does not have, or an address is none.
    """
    for key in ("labels_url", "hub_endpoint"):
        if not re.match(r"https?://[^/]", getattr(options, key)):
            raise KitsError(f"{key}: not an address of a server; it begins with https:// (or http:// for one of your own)")
    labeled = set(case_numbers(options.labeled_cases, "labeled_cases"))
    sources = [_labels(options, options.records, RECORDS_NAME)]
    for number in list_cases(options):
        case = f"case_{number:05d}"
        if number in labeled:
            sources.append(_labels(options, f"{case}/{LABEL_NAME}", f"{case}/{LABEL_NAME}"))
        if options.imaging:
            sources.append(_imaging(options, case))
    return sources


def list_cases(options: Download) -> list[int]:
    """Return the numbers that `cases` asks for, in order, each once."""
    groups = {"all": options.all_cases, "train": options.labeled_cases}
    cases = options.cases
    numbers = case_numbers(groups.get(cases, cases) if isinstance(cases, str) else cases, "cases")
    unknown = sorted(set(numbers) - set(case_numbers(options.all_cases, "all_cases")))
    if unknown:
        raise KitsError(f"cases: the data set has no case {unknown[0]}; it has {options.all_cases}")
    return sorted(set(numbers))


def case_numbers(text: Any, key: str) -> list[int]:
    """Return the case numbers of `160`, `case_00160`, `0-41` or a list of these.

    Raises:
        KitsError: anything else; `key` names where it stands.
    """
    numbers: list[int] = []
    for item in text if isinstance(text, list) else [text]:
        match = re.fullmatch(r"(?:case_)?(\d{1,5})(?:-(?:case_)?(\d{1,5}))?", str(item))
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise KitsError(f"{key}={item}: not a case; {GRAMMAR}")
        numbers += range(first, last + 1)
    if not numbers:
        raise KitsError(f"{key}: names no case; {GRAMMAR}")
    return numbers


def _labels(options: Download, path: str, name: str) -> RemoteFile:
    root = options.labels_url.rstrip("/")
    return RemoteFile(name, f"{root}/{path}", without_secrets(root), "check labels_url and the case number")


def _imaging(options: Download, case: str) -> RemoteFile:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    endpoint, repo, path = options.hub_endpoint.rstrip("/"), options.hub_repo, f"images/{case}.nii.gz"
    try:
        url = hf_hub_url(repo, path, repo_type="dataset", revision=options.hub_revision, endpoint=endpoint)
    except HFValidationError:
        raise KitsError(f"hub_repo={repo}: not the name of a data set; it is OWNER/NAME") from None
    remedy = "check hub_repo, hub_revision and hub_endpoint, and log in with `hf auth login` where the data set is not public"
    return RemoteFile(f"{case}/{IMAGE_NAME}", url, f"{without_secrets(endpoint)}/datasets/{repo}", remedy, path)


def without_secrets(url: str) -> str:
    """Return an address fit for the screen: no user, password or query, any of which can be a secret."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}".rstrip("/")
