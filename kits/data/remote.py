"""Files from the two servers, by huggingface_hub, whose errors become one line.

What may pass is tried again. Its `http_get` continues a part. `hf_hub_download`, which calls it, would delete what has arrived
whenever a transfer fails, and leave it lying where it is killed; it knows the hub alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from kits.core.errors import KitsError
from kits.core.locking import open_own
from kits.data.sources import RemoteFile
from kits.data.store import DamagedError, Promise, size_of

T = TypeVar("T")

LONGEST_PAUSE = 60  # s before another try


class Client:
    """Asks servers for files, patiently; safe to use from several threads.

    Args:
        endpoint: of the hub. A saved token goes to the one of the user's environment as ever, to no other.
        retries: after a failure that may pass.
    """

    def __init__(self, endpoint: str, retries: int) -> None:
        from huggingface_hub import constants
        from huggingface_hub.utils import logging

        logging.set_verbosity_error()  # its warnings name addresses, which may hold secrets
        self.endpoint, self.retries = endpoint.rstrip("/"), retries
        self.token = None if self.endpoint == constants.ENDPOINT else False
        self.bar: Any = None
        self.unreachable: dict[str, KitsError] = {}  # server: why; its other files are not waited for

    def promises(self, repo: str, revision: str, sources: Sequence[RemoteFile]) -> dict[RemoteFile, Promise | KitsError]:
        """Ask the hub for size and SHA-256 of its files, in one question; nothing is known of the others."""
        from huggingface_hub import HfApi, RepoFile

        results: dict[RemoteFile, Promise | KitsError] = {source: Promise() for source in sources if source.path is None}
        imaging = {source.path: source for source in sources if source.path is not None}
        if not imaging:
            return results
        api = HfApi(endpoint=self.endpoint, token=self.token)
        try:
            found = self._patiently(
                next(iter(imaging.values())),
                lambda: api.get_paths_info(repo, list(imaging), revision=revision, repo_type="dataset"),
            )
        except KitsError as error:
            return results | dict.fromkeys(imaging.values(), error)
        files = {entry.path: entry for entry in found if isinstance(entry, RepoFile)}
        for path, source in imaging.items():
            if path in files:
                lfs = files[path].lfs
                results[source] = Promise(files[path].size, lfs.sha256 if lfs else None)
            else:
                results[source] = KitsError(f"{source.server} does not have it; {source.remedy}")
        return results

    def fetch(self, source: RemoteFile, promise: Promise, part: Path) -> None:
        """Append to `part` what it lacks of the file.

        Raises:
            DamagedError: the server sends another number of bytes than it promised.
            KitsError: the server does not have it, refuses, or does not answer; or the disk is full.
        """
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        whole = self.bar

        class SilentBar(tqdm):
            """The hidden bar of one file, which tells the bar of all."""

            def __init__(self, **options: Any) -> None:
                super().__init__(disable=True)

            def update(self, n: float | None = 1) -> None:
                with whole.get_lock():
                    whole.update(n)

        def append() -> None:
            if promise.size is None:  # nobody knows of which version it is a part
                part.unlink(missing_ok=True)
            headers = build_hf_headers(token=self.token) if source.path else {}
            headers["Accept-Encoding"] = "identity"  # sizes and offsets are those of the file
            with open(part, "ab", opener=open_own) as stream:
                http_get(
                    source.url,
                    stream,
                    resume_size=size_of(part),
                    headers=headers,
                    expected_size=promise.size,
                    tqdm_class=SilentBar,
                )

        if source.server in self.unreachable:
            raise self.unreachable[source.server]
        self._patiently(source, append)

    def _patiently(self, source: RemoteFile, ask: Callable[[], T]) -> T:
        """Ask until there is an answer, or a failure that does not pass."""
        from huggingface_hub.utils import httpx

        for attempt in range(self.retries + 1):
            try:
                return ask()
            except Exception as error:
                failure, passing = explain_failure(error, source)
                if attempt == self.retries or not passing:
                    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                        self.unreachable[source.server] = failure
                    raise failure from None
            time.sleep(min(2**attempt, LONGEST_PAUSE))
        raise AssertionError


def explain_failure(error: Exception, source: RemoteFile) -> tuple[KitsError, bool]:
    """Tell what a failure means to the user in one line without addresses, and whether it may pass."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx

    later = "again and again; run the same command again later, it goes on from here"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        if status in (408, 425, 429) or status >= 500:
            return KitsError(f"{source.server} answers HTTP {status}, {later}"), True
        meaning = {401: "refuses access", 403: "refuses access", 404: "does not have it"}.get(status, "does not send it")
        return KitsError(f"{source.server} {meaning} (HTTP {status}); {source.remedy}"), False
    if isinstance(error, OfflineModeIsEnabled):
        return KitsError("the hub library is set to offline; unset HF_HUB_OFFLINE"), False
    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return KitsError(f"{source.server} cannot be reached, {later}"), True
    if isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError):
        return KitsError(f"{source.server} cuts the connection or falls silent, {later}"), True
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL):
        return KitsError(f"{source.server} cannot be used ({type(error).__name__}); check the address and the proxy"), False
    if isinstance(error, OSError) and error.errno is None:  # `http_get` counts what arrives
        return DamagedError(f"{source.server} sends another number of bytes than it promised; run the command again"), False
    if isinstance(error, OSError):
        return KitsError(f"cannot be written ({error.strerror}); check the folder and the free space"), False
    raise error
