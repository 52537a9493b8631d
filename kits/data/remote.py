"""Files over HTTP: what the server promises, then the bytes, again and again from where they stopped.

huggingface_hub gives the hub's metadata, headers and errors, and the HTTP session (proxies, certificates, offline mode) for both
servers. Its `hf_hub_download` is not used: since release 1.18 it deletes what has arrived when a transfer fails, so that the
next run starts anew, and it gives a file up at the first 5xx answer or reset connection.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, TypeVar
from urllib.parse import urlsplit

from kits.core.errors import KitsError
from kits.core.locking import open_own
from kits.data.sources import Source

T = TypeVar("T")

# Not compressed on the way: sizes and offsets are those of the file.
PLAIN = {"Accept-Encoding": "identity"}
# Worth another try beside 5xx: timeout, too early, too many requests.
PASSING_STATUS = (408, 425, 429)


@dataclass(frozen=True)
class Promise:
    """What a server says of a file before it is sent."""

    size: int | None
    version: str  # its ETag: what has arrived of another version is of no use
    sha256: str | None  # the hub's ETag of a large file; that of other servers is not a digest of the content


class DamagedError(KitsError):
    """What arrived is not what was promised."""


class StoppedError(Exception):
    """The user has interrupted the program."""


class PassingError(Exception):
    """A failure that may pass.

    Args:
        reason: for the user.
        pause: seconds that the server asks for.
        unreachable: no connection came about.
    """

    def __init__(self, reason: str, *, pause: float = 0, unreachable: bool = False) -> None:
        super().__init__(reason)
        self.pause, self.unreachable = pause, unreachable


class Client:
    """Asks servers for files, patiently; safe to use from several threads.

    Args:
        network: `timeout`, `backoff` and `longest_pause` in seconds, and `retries`.
        token: None sends a saved hub token to the hub, False does not.
        stop: once set, every transfer ends with `StoppedError`.
    """

    def __init__(self, network: dict[str, Any], *, token: bool | None, stop: Event) -> None:
        self.network, self.token, self.stop = network, token, stop
        self.unreachable: dict[str, str] = {}  # host: why; its other files are not waited for

    def promise(self, source: Source) -> Promise:
        """What the server says of a file.

        Raises:
            KitsError: it has none, refuses, or does not answer.
        """
        return self._persist(source, lambda: self._ask(source))

    def fetch(self, source: Source, promise: Promise, part: Path, gained: Callable[[int], None]) -> None:
        """Append to `part` what it lacks of the file.

        Args:
            gained: called with the bytes of each piece; negative where pieces have to be sent again.

        Raises:
            DamagedError: the server sends another number of bytes than it promised.
            KitsError: as `promise`, or the disk is full.
        """
        self._persist(source, lambda: self._continue(source, promise, part, gained), lambda: size_of(part))

    def _persist(self, source: Source, attempt: Callable[[], T], reached: Callable[[], int] = lambda: 0) -> T:
        """Attempt until it succeeds; `retries` failures in a row without getting further than ever before are the end."""
        failures, best, host = 0, reached(), urlsplit(source.url).netloc
        while True:
            if host in self.unreachable:
                raise KitsError(f"{source.name}: {self.unreachable[host]}")
            try:
                with self._judged(source):
                    return attempt()
            except PassingError as trouble:
                failures, best = 0 if reached() > best else failures + 1, max(best, reached())
                if failures > self.network["retries"]:
                    reason = f"{trouble}, {failures} times in a row; run the same command again later, it goes on from here"
                    if trouble.unreachable:
                        self.unreachable[host] = reason
                    raise KitsError(f"{source.name}: {reason}") from None
                pause = max(trouble.pause, self.network["backoff"] * 2 ** max(failures - 1, 0))
            if self.stop.wait(min(pause, self.network["longest_pause"])):
                raise StoppedError

    def _ask(self, source: Source) -> Promise:
        from huggingface_hub import get_hf_file_metadata, get_session

        timeout = self.network["timeout"]
        if source.hub:
            found = get_hf_file_metadata(source.url, token=self.token, timeout=timeout)
            digest = found.etag if found.etag and re.fullmatch("[0-9a-f]{64}", found.etag) else None
            return Promise(found.size, found.etag or "", digest)
        response = get_session().request("HEAD", source.url, headers=PLAIN, timeout=timeout, follow_redirects=True)
        if response.status_code != 200:
            raise _verdict(source, response.status_code, response.headers)
        size = response.headers.get("Content-Length")
        return Promise(int(size) if size else None, response.headers.get("ETag", "").removeprefix("W/").strip('"'), None)

    def _continue(self, source: Source, promise: Promise, part: Path, gained: Callable[[int], None]) -> None:
        """One request for the bytes from the end of `part` on."""
        from huggingface_hub import get_session

        offset = size_of(part)
        if offset and offset == promise.size:
            return
        headers = self._headers(source) | ({"Range": f"bytes={offset}-"} if offset else {})
        timeout = self.network["timeout"]
        # The address of the file itself each time, never that of a redirect: those are signed and expire.
        with get_session().stream("GET", source.url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            if response.status_code not in (200, 206, 416):
                raise _verdict(source, response.status_code, response.headers)
            start = _first_byte(response.status_code, response.headers)
            if start not in (0, offset):
                raise DamagedError(f"{source.name}: {source.server} sends other bytes than it was asked for")
            length = response.headers.get("Content-Length")
            if promise.size is not None and length is not None and start + int(length) != promise.size:
                raise DamagedError(
                    f"{source.name}: {source.server} promised {promise.size} bytes but sends {start + int(length)}"
                )
            part.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "ab", opener=open_own) as stream:
                if start < offset:  # a server that cannot resume sends the file from its beginning
                    stream.truncate(start)
                    gained(start - offset)
                for piece in response.iter_raw():
                    if self.stop.is_set():
                        raise StoppedError
                    stream.write(piece)
                    stream.flush()  # at once in the file: a killed process loses nothing that arrived
                    gained(len(piece))
        if promise.size is not None and size_of(part) != promise.size:
            raise PassingError(f"{source.server} ended the file early")

    def _headers(self, source: Source) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return PLAIN | (build_hf_headers(token=self.token) if source.hub else {})

    @contextmanager
    def _judged(self, source: Source) -> Iterator[None]:
        """Turn what the libraries raise into PassingError or one line for the user; its addresses and headers may be secret."""
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
        from huggingface_hub.utils import httpx

        try:
            yield
        except OfflineModeIsEnabled:
            raise KitsError(f"{source.name}: the hub library is set to offline; unset HF_HUB_OFFLINE") from None
        except HfHubHTTPError as error:
            raise _verdict(source, error.response.status_code, error.response.headers) from None
        except httpx.ConnectTimeout:
            raise PassingError(f"{source.server} does not answer", unreachable=True) from None
        except httpx.TimeoutException:
            raise PassingError(f"{source.server} sent nothing for {self.network['timeout']} s") from None
        except httpx.ConnectError:
            raise PassingError(f"{source.server} cannot be reached", unreachable=True) from None
        except (httpx.NetworkError, httpx.RemoteProtocolError):
            raise PassingError(f"{source.server} cut the connection") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            kind = type(error).__name__
            raise KitsError(f"{source.name}: {source.server} cannot be used ({kind}); check the address and the proxy") from None
        except OSError as error:
            raise KitsError(f"{source.name}: cannot be written ({error.strerror}); check the folder and the free space") from None


def token_for(endpoint: str) -> bool | None:
    """Whether a saved token may go to this hub: to the one of the user's environment as ever, to no other."""
    from huggingface_hub import constants

    return None if endpoint.rstrip("/") == constants.ENDPOINT else False


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def _verdict(source: Source, status: int, headers: Mapping[str, str]) -> Exception:
    """What an answer other than the file means."""
    if status in PASSING_STATUS or status >= 500:
        return PassingError(f"{source.server} answers HTTP {status}", pause=_asked_pause(headers))
    meaning = {401: "refuses access", 403: "refuses access", 404: "does not have it"}.get(status, "does not send it")
    return KitsError(f"{source.name}: {source.server} {meaning} (HTTP {status}); {source.remedy}")


def _asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds that a server asks to be left alone."""
    from huggingface_hub.utils import parse_ratelimit_headers

    limit = parse_ratelimit_headers(headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    after = headers.get("Retry-After", "")
    return float(after) if after.isdigit() else 0


def _first_byte(status: int, headers: Mapping[str, str]) -> int:
    """The offset at which an answer begins; -1 for one that names none."""
    if status == 200:
        return 0
    match = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(match[1]) if match else -1
