"""One HTTP request: where it may lead, what its answer means."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any

import mmkernel
from mmkernel.zoo.errors import MirrorError
from mmkernel.zoo.metafile import MetafileError, check_url

BUSY = (408, 425, 429, 500, 502, 503, 504)
OUT_OF_RANGE = 416


class TryAgain(Exception):
    """A failure that may pass; ``after``: in so many seconds, by the server's own word."""

    def __init__(self, reason: str, after: float | None = None, code: int | None = None) -> None:
        super().__init__(reason)
        self.after, self.code = after, code


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, request: Any, response: Any, code: int, message: str, headers: Any, url: str) -> Any:
        try:
            check_url(url, f'{request.full_url} redirects')
        except MetafileError as error:
            raise MirrorError(str(error)) from error
        return super().redirect_request(request, response, code, message, headers, url)


def request(url: str, start: int, validator: str | None, stall: float) -> Any:
    """The open response to a GET from byte ``start`` on; TryAgain or MirrorError.

    Proxies are those of the environment (https_proxy, no_proxy). ``stall``: seconds without data that are too many.
    """
    headers = {'User-Agent': f'mmkernel/{mmkernel.__version__}', 'Accept-Encoding': 'identity'}
    if start:
        headers |= {'Range': f'bytes={start}-', 'If-Range': str(validator)}
    opener = urllib.request.build_opener(_Redirects())
    try:
        return opener.open(urllib.request.Request(url, headers=headers), timeout=stall)
    except urllib.error.HTTPError as error:
        if error.code in (*BUSY, OUT_OF_RANGE):
            raise TryAgain(f'HTTP {error.code} {error.reason}', _retry_after(error.headers), error.code) from error
        raise MirrorError(f'HTTP {error.code} {error.reason}') from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise MirrorError(f'the certificate is not valid: {error.reason.verify_message}') from error
        raise TryAgain(f'no connection: {error.reason}') from error
    except (OSError, http.client.HTTPException) as error:
        raise TryAgain(f'no connection: {error or type(error).__name__}') from error


def validator(headers: Any) -> str | None:
    """What If-Range takes: a strong ETag, else the date of the last change."""
    tag = headers.get('ETag')
    return tag if tag and not tag.startswith('W/') else headers.get('Last-Modified')


def _retry_after(headers: Any) -> float | None:
    """Seconds, from a number or a date."""
    text = headers.get('Retry-After') if headers else None
    if not text:
        return None
    try:
        return (
            float(text) if text.strip().isdigit() else max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        )
    except ValueError:
        return None
