"""timm's weights on the Hugging Face hub, downloaded at one commit that is recorded."""

from __future__ import annotations

import huggingface_hub.errors
from huggingface_hub import HfApi
from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

from aerofuse.backbones.backbone import Backbone
from aerofuse.backbones.create import create_backbone
from aerofuse.backbones.families import family_of
from aerofuse.common.torchvision_pairing import ensure_torchvision_imports

ensure_torchvision_imports()

import timm  # noqa: E402

# The hub's client library has changed its HTTP library twice; its errors module always holds the current base.
_HTTP_ERROR: type[Exception] = huggingface_hub.errors.HTTPError  # type: ignore[attr-defined]


def download_backbone(name: str, revision: str | None, image_size_px: int) -> tuple[Backbone, str, str, str]:
    """The backbone with timm's default weights, and their repository, commit and licence.

    `revision` is a commit, branch or tag of the repository (`None`: its main branch). It is resolved to a commit
    first and the files are taken from that commit, so that the record names exactly what was loaded.

    Raises `ValueError` where timm has no weights for `name`, `ConnectionError` where the hub does not answer.
    """
    family_of(name)
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise ValueError(f"timm has no weights on the hub for {name!r}; set weights.source to file or bundled")
    try:
        commit = str(HfApi().model_info(config.hf_hub_id, revision=revision).sha)
        backbone = create_backbone(
            name, image_size_px=image_size_px, pretrained=True, hf_hub_id=f"{config.hf_hub_id}@{commit}"
        )
    except (_HTTP_ERROR, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise ConnectionError(
            f"the weights {config.hf_hub_id} could not be fetched from the Hugging Face hub: {error}\n"
            "Without network: fetch model.safetensors of that repository elsewhere, then set weights.source to file "
            "and weights.cnn_file / weights.transformer_file to the files."
        ) from error
    return backbone, config.hf_hub_id, commit, config.license or "not stated"
