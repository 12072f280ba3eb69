"""Text files in any usual encoding, with and without a byte order mark."""

import codecs
import logging
from pathlib import Path

from nasmvt.errors import UserError

_log = logging.getLogger(__name__)

# The mark of UTF-32 (little end first) begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_bytes(path: Path) -> bytes:
    """Read a file.

    Raises:
        UserError: if it can't be read, naming it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} can't be read ({error.strerror}): check the path and its permissions") from None


def decode_text(content: bytes, path: Path) -> str:
    """Decode UTF-8, UTF-16, UTF-32 by their mark, else UTF-8, else (with a warning) Windows-1252.

    Raises:
        UserError: if it is none of these, naming the file.
    """
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8" and b"\0" not in content:
            try:
                text = content.decode("cp1252")
            except UnicodeDecodeError:
                pass
            else:
                _log.warning("%s is not UTF-8 and was read as Windows-1252: store it as UTF-8 to be sure", path)
                return text
        raise UserError(f"{path} is not text in {encoding} ({error}): store it as UTF-8") from None


def read_text(path: Path) -> str:
    """Read a text file, see `decode_text`.

    Raises:
        UserError: if it can't be read or decoded, naming it.
    """
    return decode_text(read_bytes(path), path)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank.

    Raises:
        UserError: if it can't be read or decoded, naming it.
    """
    return [line for line in read_text(path).splitlines() if line.strip()]
