"""The seal of a safetensors file: the SHA-256 of all its bytes, kept in its own metadata.

The format has no checksum, so a flipped bit would be another weight. The sum stands at the beginning of headsr's one
metadata text and is that of the file with zeros in its place: names, shapes and metadata are under it as tensors are.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from typing import Any, BinaryIO

import safetensors

from headsr.files import open_file, parse_json

KEY = "headsr"  # of the one text in the metadata: safetensors writes several in random order
_NAME, _NO_SUM, _PIECE = "file_sha256", b"0" * 64, 2**20
# How a sealed file begins after its header's length. Its name is looked at afterwards: a flipped bit in it must not
# make the file one without a seal.
_BEGINNING = re.compile(
    rb'\{"__metadata__":\{"%b":"\{\\"(.{%d})\\": \\"(.{64})\\"' % (KEY.encode(), len(_NAME)), re.DOTALL
)
_LENGTH_BYTES, _MOST_OF_BEGINNING = 8, 200


class SealError(ValueError):
    """The bytes of a file are not those that it was sealed with. The message says so without the file's name."""


def sealable(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The metadata as safetensors takes them, with room for the seal; NaN and infinity are refused."""
    first, sorted_rest = {_NAME: _NO_SUM.decode()}, json.loads(json.dumps(metadata, sort_keys=True, allow_nan=False))
    return {KEY: json.dumps({**first, **sorted_rest})}


def seal(path: str | os.PathLike[str]) -> None:
    """Put the sum into a file that was written with ``sealable`` metadata."""
    with open(path, "r+b") as stream:
        place = _place_of_sum(stream)
        if place is None:
            raise SealError("safetensors wrote it in another order than headsr knows")
        total = _sum_of(stream, place)
        stream.seek(place)
        stream.write(total.encode())


def refuse_broken_seal(path: str | os.PathLike[str]) -> None:
    """SealError where a file is not as it was sealed. One from before there were seals passes: it says nothing.

    OSError for what cannot be read, NotAFileError for what is no file.
    """
    with open_file(path) as stream:
        place = _place_of_sum(stream)
        if place is None:
            return
        stream.seek(place)
        said, found = stream.read(len(_NO_SUM)), _sum_of(stream, place)
    if said != found.encode():
        raise SealError(f"its bytes have the SHA-256 {found}, and were {said.decode(errors='replace')}")


def metadata_of(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What ``sealable`` was given for a file; nothing of its tensors is looked at but their seal.

    SealError as ``refuse_broken_seal``, ValueError as ``unsealed``, OSError for what cannot be read.
    """
    refuse_broken_seal(path)
    try:
        with safetensors.safe_open(path, framework="numpy") as stream:
            return unsealed(stream.metadata())
    except safetensors.SafetensorError as error:
        raise SealError(f"it is no safetensors file ({error})") from error


def unsealed(metadata: Mapping[str, str] | None) -> dict[str, Any]:
    """What ``sealable`` was given. ValueError for a foreign file, and for text that is no block of JSON."""
    text = (metadata or {}).get(KEY)
    content = None if text is None else parse_json(text)
    if not isinstance(content, dict):
        raise ValueError("headsr wrote no metadata into it")
    content.pop(_NAME, None)
    return content


def _place_of_sum(stream: BinaryIO) -> int | None:
    """Where in a file its sum begins; None for a file without one."""
    stream.seek(_LENGTH_BYTES)
    begins = _BEGINNING.match(stream.read(_MOST_OF_BEGINNING))
    if begins is None:
        return None
    if begins[1] != _NAME.encode():
        raise SealError("the name of its sum is damaged")
    return _LENGTH_BYTES + begins.start(2)


def _sum_of(stream: BinaryIO, place: int) -> str:
    stream.seek(0)
    digest = hashlib.sha256(stream.read(place) + _NO_SUM)
    stream.seek(place + len(_NO_SUM))
    while piece := stream.read(_PIECE):
        digest.update(piece)
    return digest.hexdigest()
