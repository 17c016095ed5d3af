"""What a prompt attaches: ``data:`` URLs and text behind http(s), read into the prompt."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

import httpx

MOST_BYTES = 1_000_000


class FileError(Exception):
    """A file can't be attached; the message is for the user."""


async def attach(prompt: str, urls: list[str]) -> str:
    """The prompt with the text of each file after it.

    Raises:
        FileError: one can't be read, is over 1 MB, or is no text.
    """
    parts = [prompt]
    for number, url in enumerate(urls, 1):
        name = url if len(url) <= 100 and not url.startswith("data:") else f"file {number}"
        data = _data_url(url, name) if url.startswith("data:") else await _download(url, name)
        if len(data) > MOST_BYTES:
            raise FileError(f"{name} is over 1 MB, the most that can be attached.")
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = "\0"
        if "\0" in text:
            raise FileError(f"{name} is no UTF-8 text: these models read text only.")
        parts.append(f"File {number} ({name}):\n{text}" if name != f"file {number}" else f"File {number}:\n{text}")
    return "\n\n".join(parts)


def _data_url(url: str, name: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma:
        raise FileError(f"{name} is no data: URL: it lacks the comma before the data.")
    data = unquote_to_bytes(body)
    if not head.endswith(";base64"):
        return data
    try:
        return base64.b64decode(re.sub(rb"\s", b"", data), validate=True)
    except binascii.Error:
        raise FileError(f"{name} says base64 and isn't.") from None


async def _download(url: str, name: str) -> bytes:
    if not url.startswith(("http://", "https://")):
        raise FileError(f"{name} is neither an http(s) nor a data: URL.")
    got = bytearray()
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=30) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise FileError(f"{name} can't be read: the answer was {answer.status_code}.")
            async for block in answer.aiter_bytes():
                got += block
                if len(got) > MOST_BYTES:
                    break
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise FileError(f"{name} can't be read: {error or type(error).__name__}") from None
    return bytes(got)
