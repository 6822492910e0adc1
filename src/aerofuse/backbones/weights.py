"""Where a backbone's pretrained weights come from: the repository, the hub, or a file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import torch

from aerofuse.backbones.backbone import Backbone
from aerofuse.backbones.create import THIN_BACKBONES, create_backbone
from aerofuse.backbones.hub import download_backbone
from aerofuse.backbones.params import BackboneParams, Branch, WeightParams
from aerofuse.common.weight_files import load_into, load_weights, save_weights, write_atomically

BUNDLED_FOLDER = Path("data/weights")


@dataclass(frozen=True)
class WeightRecord:
    """Where one backbone's weights came from; `sha256` is of the file that the models load."""

    backbone: str
    source: str
    location: str
    revision: str
    licence: str
    sha256: str = ""


def prepare_weights(
    backbones: BackboneParams, params: WeightParams, image_size_px: int, folder: Path
) -> dict[Branch, WeightRecord]:
    """Write `cnn.safetensors`, `transformer.safetensors` and `record.json` to `folder`.

    All weights are found and checked against their backbones before anything is written. Raises
    `FileNotFoundError`, `ConnectionError` or `ValueError`, saying what to do.
    """
    found = {branch: _find(branch, backbones, params, image_size_px) for branch in get_args(Branch)}
    records: dict[Branch, WeightRecord] = {}
    for branch, (backbone, record) in found.items():
        path = folder / f"{branch}.safetensors"
        save_weights(path, backbone.model.state_dict())
        records[branch] = WeightRecord(**asdict(record) | {"sha256": file_sha256(path)})
    content = {branch: asdict(record) for branch, record in records.items()}
    write_atomically(folder / "record.json", (json.dumps(content, indent=2) + "\n").encode())
    return records


def _find(
    branch: Branch, backbones: BackboneParams, params: WeightParams, image_size_px: int
) -> tuple[Backbone, WeightRecord]:
    """The backbone of a branch with its pretrained weights, and where they came from."""
    name: str = getattr(backbones, branch)
    if params.source == "hub":
        backbone, location, commit, licence = download_backbone(
            name, getattr(params, f"{branch}_revision"), image_size_px
        )
        return backbone, WeightRecord(name, "hub", location, commit, licence)
    if params.source == "none":
        torch.manual_seed(0)
    backbone = create_backbone(name, image_size_px=image_size_px)
    if params.source == "none":
        return backbone, WeightRecord(name, "none", "random initialisation", "none", "none")
    if params.source == "file":
        path = Path(getattr(params, f"{branch}_file"))
        record = WeightRecord(name, "file", path.as_posix(), file_sha256(path), "as the file's owner says")
    else:
        path, record = _bundled(name)
    # Bundled weights are kept in half precision, to keep the repository small.
    state = {
        key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in load_weights(path).items()
    }
    load_into(backbone.model, state, f"{path} (weights.source: {params.source})")
    return backbone, record


def _bundled(name: str) -> tuple[Path, WeightRecord]:
    path = BUNDLED_FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"no bundled weights for {name!r} at {path}; bundled are {', '.join(THIN_BACKBONES)}, "
            "for others set weights.source to hub or file"
        )
    described = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    if described["sha256"] != file_sha256(path):
        raise ValueError(f"{path} is damaged: it is not the file that {name}.json describes; git checkout {path}")
    return path, WeightRecord(name, "bundled", path.as_posix(), described["revision"], described["licence"])


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal. Raises `FileNotFoundError`."""
    if not path.is_file():
        raise FileNotFoundError(f"no weights at {path}")
    return hashlib.sha256(path.read_bytes()).hexdigest()
