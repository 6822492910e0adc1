"""Sections that say how a model is trained."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from aerofuse.common.params import AS_PATH, Section
from aerofuse.data.transforms import AugmentationParams

AUTO = "auto"  # as much as the device has room for
OnOutOfMemory = Literal["fail", "split", "split_and_checkpoint"]
Parallelism = Literal["ddp", "fsdp"]
ClassBalance = Literal["none", "sampling", "loss"]


class TaskWeights(Section):
    """Weight of each head's loss in the sum; a model without a head ignores its weight."""

    type: float = Field(ge=0)
    airline: float = Field(ge=0)
    clarity: float = Field(ge=0)
    block: float = Field(ge=0)


class CheckpointingParams(Section):
    """Gradient checkpointing: less memory for more time, the same result."""

    policy: Literal["none", "recompute_all", "selective", "segments", "budget", "plan"]
    segments: int | None = Field(default=None, ge=1, description="ranges of each backbone, for the policy segments")
    budget: int | float | str | None = Field(
        default=None, description="bytes, a size, a share, or `auto`; `check_params` reads the size"
    )
    plan: Annotated[str | None, AS_PATH] = Field(
        default=None, description="file that CheckpointingPlan.save wrote, for the policy plan"
    )
    offload: bool = Field(
        default=False, description="a plan for a budget may let tensors wait in host memory; on a GPU"
    )

    @field_validator("budget", mode="plain")
    @classmethod
    def _budget_is_a_word_or_a_number(cls, value: object) -> object:
        # One message instead of one for each type that it might have been meant to have.
        if value is None or (isinstance(value, int | float | str) and not isinstance(value, bool)):
            return value
        raise ValueError("write auto, a size such as 12 GiB, a share of the activations such as 0.5, or null")

    @model_validator(mode="after")
    def _settings_go_with_the_policy(self) -> Self:
        for name in ("segments", "budget", "plan"):
            value = getattr(self, name)
            if name == self.policy and value is None:
                raise ValueError(f"policy is {name}, but {name} is null; give {name} too, or choose another policy")
            if name != self.policy and value is not None:
                raise ValueError(
                    f"{name} is {value}, but policy is {self.policy}; set policy to {name}, or {name} to null"
                )
        if self.offload and self.policy != "budget":
            raise ValueError(f"offload is true, but policy is {self.policy}; set policy to budget, or offload to false")
        return self


class MixingParams(Section):
    """How batches are mixed. Of two ways that are both on, each batch gets one by chance."""

    probability: float = Field(ge=0, le=1, description="share of the batches that are mixed")
    mixup: float = Field(ge=0, description="alpha of mixup's Beta distribution; 0: no mixup")
    cutmix: float = Field(ge=0, description="alpha of CutMix's Beta distribution; 0: no CutMix")

    @classmethod
    def off(cls) -> Self:
        """Return no mixing."""
        return cls(probability=0.0, mixup=0.0, cutmix=0.0)


class LaunchParams(Section):
    """On how many processes every training stage runs, each with its own device where there are GPUs."""

    processes: int = Field(ge=1, le=1024, description="of this machine; torchrun's own variables span several")


class HeadDropoutParams(Section):
    """Dropout in front of every head, per model."""

    single_task: float = Field(ge=0, lt=1)
    multi_task: float = Field(ge=0, lt=1)
    hybrid: float = Field(ge=0, lt=1)


class TrainingParams(Section):
    """What all training stages of a recipe share."""

    mixed_precision: Literal["no", "bf16", "fp16"]
    weight_decay: float = Field(ge=0)
    gradient_clip: float = Field(gt=0, description="largest gradient norm")
    warmup_fraction: float = Field(
        ge=0, lt=1, description="share of the steps that the rate rises over; then cosine to 0"
    )
    task_weights: TaskWeights
    augmentation: AugmentationParams
    gradient_checkpointing: CheckpointingParams
    memory_reserve: float = Field(
        default=0.1, ge=0, lt=1, description="share of the device's memory that `auto` leaves to kernels and fragments"
    )
    largest_batch_size: int = Field(default=256, ge=1, description="`batch_size: auto` never goes above")
    on_out_of_memory: OnOutOfMemory = Field(
        default="split_and_checkpoint",
        description="run batches in parts, then raise gradient checkpointing; or the first alone, or neither",
    )
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="each layer of a backbone learns so many times as fast as the one above it"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of each label that all classes get")
    mixing: MixingParams = MixingParams.off()
    class_balance: ClassBalance = Field(
        default="none", description="rare types are drawn as often as others (sampling), or weigh more (loss)"
    )
    early_stopping: int | None = Field(
        default=None, ge=1, description="a stage ends after so many epochs without a better score"
    )
    weight_averaging: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="decay of the moving average of the weights that is validated and kept; 0: none",
    )
    mirrored_evaluation: bool = Field(
        default=False, description="the model sees each photo mirrored, too, whenever it is not trained: twice the time"
    )
    channels_last: bool = Field(default=False, description="weights of convolutions lie as their kernels like it")
    compile: bool = Field(
        default=False, description="torch.compile for the training step; with checkpointing, unit by unit"
    )
    feature_views: int = Field(
        default=2,
        ge=0,
        le=100,
        description="a stage whose backbones are all frozen sees each photo so often, and learns from features; "
        "0: it sees each photo in every epoch",
    )
    save_state_every: int = Field(
        default=200,
        ge=1,
        description="updates after which the state to resume from is saved, besides every epoch's end",
    )
    parallelism: Parallelism = Field(
        default="ddp", description="of several processes each holds the whole model (DDP), or its share of it (FSDP2)"
    )
    num_workers: int = Field(ge=0)
    shuffle_shards: int | None = Field(
        default=None, ge=1, description="photos are shuffled within so many shards at a time; null: within all"
    )

    @model_validator(mode="after")
    def _settings_go_together(self) -> Self:
        if self.parallelism == "fsdp" and self.mixed_precision == "fp16":
            raise ValueError("fsdp goes with mixed_precision bf16 or no: the scaler of fp16 sees whole gradients only")
        if self.compile and self.parallelism == "fsdp":
            raise ValueError("compile goes with parallelism ddp")
        return self


class PhaseParams(Section):
    """One training stage: how long, how fast, in which portions."""

    epochs: int = Field(ge=1)
    learning_rate: float = Field(gt=0, le=1)
    batch_size: int | Literal["auto"] = Field(
        description="images a step; `auto`: the most that the device has room for"
    )
    accumulation_steps: int = Field(ge=1, description="batches whose gradients are summed before a step")

    @field_validator("batch_size", mode="plain")
    @classmethod
    def _batch_size_is_a_number_or_auto(cls, value: object) -> object:
        # As for the budget: one message.
        if value == AUTO or (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            return value
        raise ValueError(f"write a number of images, at least 1, or {AUTO}")
