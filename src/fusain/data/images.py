"""From the stored bytes of one image to RGB pixels: checked, fully decoded, turned upright, converted, and fitted."""

from __future__ import annotations

import io
import struct
import threading
import zlib
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageFile, ImageOps

from fusain.data import sniff
from fusain.errors import DataError

Pixels = npt.NDArray[np.uint8]

FORMATS: Final = ("PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
PILLOW_FAULTS: Final = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's decoders raise for damaged files."""

_ORIENTATION: Final = 0x0112
_MAY_TURN: Final = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")
_opening = threading.Lock()


class Conversion(IntFlag):
    """What was done to an image beside decoding it; counted for the report."""

    TURNED = 1
    CMYK = 2
    DEEP = 4
    PALETTE = 8
    ALPHA = 16
    GRAY = 32
    PROFILE = 64
    FIRST_FRAME = 128
    OTHER_MODE = 256
    BAD_PROFILE = 512

    @property
    def words(self) -> str:
        return _WORDS[self]


_WORDS: Final = {
    Conversion.TURNED: "turned upright (EXIF)",
    Conversion.CMYK: "CMYK to RGB",
    Conversion.DEEP: "16 or 32 bits to 8 bits a channel",
    Conversion.PALETTE: "palette to RGB",
    Conversion.ALPHA: "transparency laid over white",
    Conversion.GRAY: "grayscale to RGB",
    Conversion.PROFILE: "colour profile to sRGB",
    Conversion.FIRST_FRAME: "first frame or page only",
    Conversion.OTHER_MODE: "another colour mode to RGB",
    Conversion.BAD_PROFILE: "unreadable colour profile left out",
}


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image, H x W x 3, and what was done to it."""

    pixels: Pixels
    conversions: Conversion


def decode(content: bytes, name: str, max_pixels: int) -> Decoded:
    """All pixels of an image; a DataError that names it where it is broken, too large or no image."""
    head = content[: sniff.HEAD_BYTES]
    if not content:
        raise DataError("E-DATA-012", where=name, name=name)
    stored_as = sniff.image_format(head)
    if stored_as is None:
        finding = sniff.what_it_is(head)
        raise DataError("E-DATA-013", where=name, name=name, found=finding.found, advice=finding.advice)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES, "half an image would be learnt as a whole one"
    image: Any = None
    try:
        image = _open(content, stored_as)
        width, height = image.size
        if width * height > max_pixels:
            raise DataError(
                "E-DATA-014", where=name, name=name, width=width, height=height, count=width * height, limit=max_pixels
            )
        return _as_rgb(image)
    except PILLOW_FAULTS as fault:
        raise _broken(content, name, image, fault) from fault
    except MemoryError as fault:
        raise DataError("E-DATA-016", where=name, name=name, problem="it needs more memory than there is") from fault


def opacity(content: bytes, name: str) -> Pixels:
    """How opaque each pixel is, H x W, upright: 255 all over where an image has no transparency."""
    stored_as = sniff.image_format(content[: sniff.HEAD_BYTES])
    assert stored_as is not None, "the image was decoded before"
    try:
        image = _open(content, stored_as)
        image.load()
        return np.asarray(_upright(image).convert("RGBA").getchannel("A"))
    except PILLOW_FAULTS as fault:
        raise _broken(content, name, None, fault) from fault


def _open(content: bytes, stored_as: str) -> Any:
    """Pillow's image, its header read only. Its own limit is lifted meanwhile: `max_pixels` names size and setting."""
    formats = ("JPEG", "MPO") if stored_as == "JPEG" else (stored_as,)
    with _opening:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(content), formats=formats)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _broken(content: bytes, name: str, image: Any, fault: BaseException) -> DataError:
    """Cut off, with the share that could be decoded where it can be told; else damaged."""
    declared = 8 + int.from_bytes(content[4:8], "little") if content[:4] == b"RIFF" and len(content) > 8 else 0
    text = str(fault).lower()
    if len(content) < declared:
        part = f" ({_percent(len(content), declared)} of its bytes are there)"
        return DataError("E-DATA-011", where=name, name=name, part=part)
    if "truncated" in text or isinstance(fault, EOFError):
        rows = _decoded_rows(image)
        part = f" (decoded {_percent(rows, image.height)})" if rows else ""
        return DataError("E-DATA-011", where=name, name=name, part=part)
    return DataError("E-DATA-016", where=name, name=name, problem=str(fault) or type(fault).__name__)


def _percent(part: int, whole: int) -> str:
    return f"{min(99, 100 * part // whole)} %"


def _decoded_rows(image: Any) -> int:
    """Rows down to the last that is not black: Pillow starts from black and stops where the bytes end."""
    core = getattr(image, "_im", None)
    if core is None or getattr(image, "format", "") not in ("PNG", "JPEG", "MPO", "TIFF"):
        return 0
    box = core.getbbox()
    return int(box[3]) if box and box[3] < image.height else 0


def _as_rgb(image: Any) -> Decoded:
    deep = bool(image.tile) and "16" in str(image.tile[0][3])
    image.load()
    done = Conversion.DEEP if deep and image.mode in ("RGB", "RGBA", "L", "LA") else Conversion(0)
    if getattr(image, "n_frames", 1) > 1:
        done |= Conversion.FIRST_FRAME
    profile = image.info.get("icc_profile")
    upright = _upright(image)
    if upright is not image:
        done |= Conversion.TURNED
        image = upright
    if image.mode != "RGB" or "transparency" in image.info:
        image, changed = _flattened(image, profile)
        done |= changed
    if profile and not done & Conversion.PROFILE and image.mode == "RGB":
        image, changed = _in_srgb(image, profile)
        done |= changed
    return Decoded(np.asarray(image), done)


def _upright(image: Any) -> Any:
    if image.format not in ("TIFF", "MPO", "AVIF") and not any(key in image.info for key in _MAY_TURN):
        return image
    if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
        return ImageOps.exif_transpose(image)
    return image


def _flattened(image: Any, profile: bytes | None) -> tuple[Any, Conversion]:
    """Any mode as RGB; what is transparent lies over white."""
    mode, done = image.mode, Conversion(0)
    if mode == "P":
        done |= Conversion.PALETTE
    elif mode in ("L", "1", "LA", "La"):
        done |= Conversion.GRAY
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            done |= Conversion.ALPHA
            white = Image.new("RGBA", image.size, (255, 255, 255, 255))
            image = Image.alpha_composite(white, image)
        return image.convert("RGB"), done
    if mode.startswith("I") or mode == "F":
        return Image.fromarray(_eight_bits(image)).convert("RGB"), Conversion.DEEP | Conversion.GRAY
    if mode == "CMYK":
        done |= Conversion.CMYK
        if profile:
            converted, changed = _in_srgb(image, profile)
            if changed & Conversion.PROFILE:
                return converted, done | changed
    elif not done and mode != "RGB":
        done |= Conversion.OTHER_MODE
    return image.convert("RGB"), done


def _eight_bits(image: Any) -> Pixels:
    """16-bit whole numbers and 32-bit numbers as 0 to 255; numbers with a point count as 0 to 1 where none is above."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64))
    full = 65535.0 if image.mode.startswith("I") else 1.0 if values.max(initial=0.0) <= 1.0 else 255.0
    return np.clip(np.rint(values * (255.0 / full)), 0, 255).astype(np.uint8)


def _in_srgb(image: Any, profile: bytes) -> tuple[Any, Conversion]:
    try:
        stored = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(stored).lower():
            return image, Conversion(0)
        converted = ImageCms.profileToProfile(image, stored, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return image, Conversion.BAD_PROFILE
    return converted, Conversion.PROFILE
