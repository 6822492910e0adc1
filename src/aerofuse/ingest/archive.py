"""Unpacking an archive into a folder that nothing of it can leave."""

from __future__ import annotations

import json
import logging
import shutil
import tarfile
from pathlib import Path

from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

_RECORD = "extracted.json"


def extract_archive(archive: Path, folder: Path) -> Path:
    """Unpack a tar file, compressed or not, into `folder`, once: what is there of the same file is used again.

    Raises `ValueError` for a file that is no such archive, is damaged, or would write outside of the folder.
    """
    stat = archive.stat()
    record = {"archive": str(archive.resolve()), "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}
    if (folder / _RECORD).is_file() and json.loads((folder / _RECORD).read_text()) == record:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    logger.info("unpacking %s", archive)
    try:
        with tarfile.open(archive) as tar, tqdm(desc="files unpacked", unit="file", disable=None) as bar:
            for member in tar:
                # Refuses absolute paths, paths and links that lead outside, and devices.
                tar.extract(member, unfinished, filter="data")
                bar.update()
    except tarfile.FilterError as error:
        raise ValueError(f"{archive} is not safe to unpack: {error}") from None
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}; download it again") from None
    (unfinished / _RECORD).write_text(json.dumps(record))
    unfinished.replace(folder)
    return folder
