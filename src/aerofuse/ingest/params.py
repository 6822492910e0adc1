"""The parameters in the section `data`: which photos, where from, and how they are split."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from aerofuse.common.params import Section, path_text
from aerofuse.data.object_store import is_remote
from aerofuse.data.photo import Fit
from aerofuse.data.shards import ShardParams
from aerofuse.synthetic.params import SyntheticParams

SPLITS = ("train", "validation", "test")
TRAIN, VALIDATION, TEST = SPLITS
_SPELLINGS = {name: name for name in SPLITS} | {"val": VALIDATION, "valid": VALIDATION}

Leaks = Literal["report", "move", "refuse"]
Paths = Path | Mapping[str, Path]  # one for all splits, or one for each
Roots = Path | str | Mapping[str, Path | str]  # with text for the address of a folder in an object store


def split_named(text: str) -> str:
    """Return the split that a text names, in any case. Raises `ValueError` for any other text."""
    name = _SPELLINGS.get(text.strip().casefold())
    if name is None:
        raise ValueError("write train, validation or test")
    return name


def _path_or_paths(value: object) -> object:
    """Check a path, or a mapping from splits to paths; what it returns has the type of `PathParam`."""
    if not isinstance(value, Mapping):
        path = path_text(value)
        if isinstance(path, str) and path:
            return path
        raise ValueError("write a path, or one for each of train, validation and test")
    paths = {}
    for key, path in value.items():
        name, text = split_named(str(key)), path_text(path)
        if name in paths or not (isinstance(text, str) and text):
            raise ValueError(f"write one path for {name}")
        paths[name] = text
    for name in (TRAIN, TEST):
        if name not in paths:
            raise ValueError(f"{name} is missing; only validation may be left out, and is cut from train then")
    return {name: paths[name] for name in SPLITS if name in paths}


PathParam = Annotated[str | dict[str, str], BeforeValidator(_path_or_paths)]


class SplitParams(Section):
    """The share of the photos in each split. An airframe is never divided between splits."""

    train: float = Field(gt=0, lt=1)
    validation: float = Field(gt=0, lt=1)
    test: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train + validation + test must be 1, not {total:.4g}")
        return self


class CropParams(Section):
    """Whether training photos are cropped to their boxes, and the padding around, as a share of the box's sides."""

    to_box: bool
    padding: float = Field(ge=0, le=1)


class DataParams(Section):
    """The photos that the pipeline runs on."""

    source: Literal["synthetic", "table", "fgvc"]
    engine: Literal["local", "ray"]
    root: PathParam
    labels: PathParam
    fgvc_level: Literal["variant", "family", "manufacturer"]
    max_bad_fraction: float = Field(ge=0, le=1)
    duplicate_bits: int = Field(ge=0, le=64)
    only_types: list[str] | None = Field(min_length=1)
    min_photos: int = Field(ge=0)
    small_types: Literal["refuse", "merge"]
    leaks: Leaks
    fit: Fit
    crop: CropParams
    split: SplitParams
    shards: ShardParams
    synthetic: SyntheticParams

    @property
    def inputs(self) -> dict[str, Path]:
        """The files and folders here that the source reads, by what names them: `root`, or `root.train`."""
        read = {"synthetic": (), "table": ("root", "labels"), "fgvc": ("root",)}[self.source]
        given = {name: _by_split(getattr(self, name)) for name in read}
        return {
            f"{name}.{split}" if split else name: Path(text)
            for name, value in given.items()
            for split, text in value.items()
            if not is_remote(text)
        }

    @model_validator(mode="after")
    def _places_go_with_the_source(self) -> Self:
        for name in ("labels", "root") if self.source == "fgvc" else ("labels",):
            value = getattr(self, name)
            if any(map(is_remote, _by_split(value).values())):
                raise ValueError(
                    f"data.{name} is {value!r}, and only the photos of a table may be in an object store; copy it here"
                )
        if self.source == "fgvc" and isinstance(self.root, dict):
            raise ValueError("data.root has a folder for each split, and FGVC-Aircraft is one archive; write its path")
        return self

    @model_validator(mode="after")
    def _settings_go_with_drawn_photos(self) -> Self:
        if self.source != "synthetic":
            return self
        if self.engine == "ray":
            raise ValueError(
                "data.engine is ray, which reads photos in files, and data.source is synthetic, whose photos are drawn "
                "here; set data.engine to local, or choose another source"
            )
        if self.fit != "letterbox":
            raise ValueError(
                f"data.fit is {self.fit}, and data.source is synthetic, whose photos are square; set data.fit to "
                "letterbox, or choose another source"
            )
        if self.only_types is not None or self.min_photos > 1:
            raise ValueError(
                "data.only_types and data.min_photos choose among photos of your own, and data.source is synthetic; "
                "set only_types to null and min_photos to 1, or choose another source"
            )
        return self

    @model_validator(mode="after")
    def _only_whole_photos_are_cropped(self) -> Self:
        if self.fit == "crop" and self.crop.to_box:
            raise ValueError(
                "data.fit is crop and data.crop.to_box is true: an aircraft that fills its box would lose its ends; "
                "set data.fit to letterbox or stretch, or data.crop.to_box to false"
            )
        return self


def as_paths(value: str | dict[str, str]) -> Paths:
    """Return the path of a parameter, or those of the splits."""
    return Path(value) if isinstance(value, str) else {name: Path(path) for name, path in value.items()}


def as_roots(value: str | dict[str, str]) -> Roots:
    """Return the folder of a parameter, or those of the splits; of an object store, its address."""
    roots: dict[str, Path | str] = {
        name: text.rstrip("/") if is_remote(text) else Path(text) for name, text in _by_split(value).items()
    }
    return roots[""] if isinstance(value, str) else roots


def _by_split(value: str | dict[str, str]) -> Mapping[str, str]:
    """The texts of a parameter by split, that of all splits by an empty one."""
    return {"": value} if isinstance(value, str) else value
