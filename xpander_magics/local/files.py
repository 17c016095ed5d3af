"""What a prompt attaches: ``data:`` URLs and text behind http(s), read into the prompt.

It is this machine that asks for them, so they can name what only it can reach: other servers on it and on its
network. That is wanted, and whoever takes URLs from others' data should know it. Link-local addresses alone are
refused: there clouds hand out a machine's credentials.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import ipaddress
import re
from urllib.parse import unquote_to_bytes

import httpx

from xpander_magics.safety import without_user

MOST_BYTES = 1_000_000
_MOST_BYTES_TOGETHER = 4_000_000
_MOST_FILES = 50
_SECONDS = 30
"""Most that one may take, however slowly it comes."""


class FileError(Exception):
    """A file can't be attached; the message is for the user."""


async def attach(prompt: str, urls: list[str]) -> str:
    """The prompt with the text of each file after it.

    Raises:
        FileError: one can't be read, is over 1 MB, or is no text; or they are too many.
    """
    if len(urls) > _MOST_FILES:
        raise FileError(f"There are {len(urls):,} files, and at most {_MOST_FILES} can be attached.")
    parts = [prompt]
    together = 0
    for number, url in enumerate(urls, 1):
        # The model reads the name: what only says who may fetch the file is left out.
        short = re.sub(r"[?#].*", "", without_user(url), flags=re.DOTALL)
        name = short if len(short) <= 100 and not url.startswith("data:") else f"file {number}"
        data = _data_url(url, name) if url.startswith("data:") else await _download(url, name)
        if len(data) > MOST_BYTES:
            raise FileError(f"{name} is over 1 MB, the most that can be attached.")
        together += len(data)
        if together > _MOST_BYTES_TOGETHER:
            raise FileError(f"The files are over {_MOST_BYTES_TOGETHER / 1e6:.0f} MB together.")
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
    try:
        return await asyncio.wait_for(_get(url, name), _SECONDS)
    except asyncio.TimeoutError:
        raise FileError(f"{name} can't be read: it took over {_SECONDS} seconds.") from None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise FileError(f"{name} can't be read: {str(error) or type(error).__name__}") from None


async def _get(url: str, name: str) -> bytes:
    got = bytearray()
    # The caller waits for so long and no longer: httpx's own limit would give up a server that only begins late.
    client = httpx.AsyncClient(follow_redirects=True, timeout=None)
    async with client, client.stream("GET", url) as answer:
        # Looked at where the connection went: a name can have one address now and another then.
        if _is_link_local(answer):
            raise FileError(f"{name} can't be read: its address is link-local.")
        if answer.status_code != 200:
            raise FileError(f"{name} can't be read: the answer was {answer.status_code}.")
        async for block in answer.aiter_bytes():
            got += block
            if len(got) > MOST_BYTES:
                break
    return bytes(got)


def _is_link_local(answer: httpx.Response) -> bool:
    host = answer.extensions["network_stream"].get_extra_info("server_addr")[0]
    address = ipaddress.ip_address(host.partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_link_local
