"""The groups `trainer`, `callbacks` and `logger`."""

from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field, model_validator

from kits.config.schema.base import Count, Index, Length, Meaning, Options, Positive, Share, Switch, Text, Whole, refuse
from kits.config.schema.own import OWN, branch, is_target
from kits.core.errors import KitsError

# Lightning's: a whole number of batches, or a share of them.
Batches = Index | Share
# Lightning knows more; networks, losses and windows here compute in float32 or in autocast.
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
MaxTime = Annotated[
    Text,
    Field(pattern=r"^\d\d:\d\d:\d\d:\d\d$"),
    Meaning("a text DD:HH:MM:SS in quotes, above 0", lambda time: int(time.replace(":", "")) > 0),
]
OnceOrMore = Annotated[int, Field(strict=True, ge=-1)]


class Trainer(Options):
    """Options of `pytorch_lightning.Trainer` under its names, `launcher` and `compile`."""

    max_epochs: Count
    max_steps: Annotated[OnceOrMore, Meaning("a whole number of 1 or more, or -1: trainer.max_epochs decides", bool)]
    max_time: MaxTime | None
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"]
    devices: Count | Literal["auto"] | Annotated[list[Index], Field(min_length=1)]
    num_nodes: Count
    strategy: Literal["auto", "ddp"]
    launcher: Literal["srun"] | None
    sync_batchnorm: Switch
    precision: Precision
    accumulate_grad_batches: Count
    gradient_clip_val: Length | None
    gradient_clip_algorithm: Literal["norm", "value"]
    log_every_n_steps: Count
    num_sanity_val_steps: OnceOrMore
    limit_train_batches: Annotated[Batches, Meaning("a share above 0 up to 1.0, or a whole number of batches of 1 or more", bool)]
    limit_val_batches: Batches
    val_check_interval: Annotated[
        Batches, Meaning("a whole number of batches of 1 or more, or a share of an epoch above 0 up to 1.0", bool)
    ]
    check_val_every_n_epoch: Count
    deterministic: Switch | Literal["warn"]
    benchmark: Switch | None
    compile: Switch
    detect_anomaly: Switch
    profiler: Literal["simple", "advanced", "pytorch"] | None
    enable_progress_bar: Switch

    @property
    def validates(self) -> bool:
        """True where validation scores choose best.ckpt; trainer.limit_val_batches=0 keeps the last weights."""
        return self.limit_val_batches > 0

    @property
    def ranks(self) -> int | None:
        """The processes that train together; None where that depends on the machine."""
        if self.strategy == "auto":
            return 1
        count = len(self.devices) if isinstance(self.devices, list) else self.devices
        return None if count == "auto" else count * self.num_nodes

    def check_epoch(self, batches: int) -> None:
        """Refuse intervals that do not fit the batches of an epoch, and an end before the first checkpoint."""
        limit, between = self.limit_train_batches, self.val_check_interval
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        if not batches:
            raise refuse("trainer.limit_train_batches", limit, "leaves no batch of an epoch to learn from; give more")
        if not self.validates:
            return
        if isinstance(between, int) and between > batches:
            raise refuse("trainer.val_check_interval", between, f"an epoch has {batches} batches; give at most that")
        within = between if isinstance(between, int) else max(1, int(batches * between))  # of the first epoch that is validated
        epochs = [batches] * (self.check_val_every_n_epoch - 1) + [within]
        steps = sum(math.ceil(one / self.accumulate_grad_batches) for one in epochs)
        if 0 <= self.max_steps < steps:
            what = f"ends before step {steps}, the first that is followed by a validation and so by a checkpoint"
            more = f"give at least {steps}, or a smaller sampling.patches_per_epoch"
            raise refuse("trainer.max_steps", self.max_steps, f"{what}; {more}")

    @model_validator(mode="after")
    def _go_together(self) -> Trainer:
        """Refuse a training that is never validated, devices in one process, and what a device cannot do."""
        if self.validates and self.check_val_every_n_epoch > self.max_epochs:
            what = f"no epoch would be validated, trainer.max_epochs={self.max_epochs}; give a smaller one"
            raise refuse("trainer.check_val_every_n_epoch", self.check_val_every_n_epoch, what)
        count = len(self.devices) if isinstance(self.devices, list) else self.devices
        if self.strategy == "auto" and (self.num_nodes > 1 or count not in (1, "auto")):
            key = "num_nodes" if self.num_nodes > 1 else "devices"
            what = "several devices need a process each; add trainer=ddp (one machine) or trainer=slurm (several)"
            raise refuse(f"trainer.{key}", getattr(self, key), what)
        if self.compile and self.accelerator == "mps":
            raise KitsError("trainer.compile=true: torch.compile is not tried on Apple's GPUs; leave it out")
        if self.sync_batchnorm and self.accelerator == "cpu":
            raise KitsError("trainer.sync_batchnorm=true: torch synchronizes statistics on GPUs only; set it to false on a CPU")
        return self


class EarlyStopping(Options):
    """Epochs without a better score before the end."""

    patience: Index


class Checkpoint(Options):
    """The moments of `last.ckpt` between epochs; whichever comes first."""

    every_steps: Count | None
    every_minutes: Positive | None


class WithOthers(Options):
    """A group that takes parts of the user's own beside its keys, each under a name."""

    model_config = ConfigDict(extra="allow")
    of_group: ClassVar[str]

    @model_validator(mode="after")
    def _others_are_parts(self) -> WithOthers:
        """Refuse other keys that are no parts."""
        for name, value in self.others().items():
            if branch(value) != OWN or not is_target(value):
                what = "no such key; a part of your own has _target_: MODULE.NAME"
                raise refuse(f"{self.of_group}.{name}", value, what)
        return self

    def others(self) -> dict[str, dict[str, Any]]:
        """Return the parts of the user's own, by name."""
        return self.model_extra or {}


class Callbacks(WithOthers):
    """conf/callbacks/default.yaml."""

    of_group = "callbacks"
    early_stopping: EarlyStopping
    checkpoint: Checkpoint


class LoggerOptions(WithOthers):
    """Options of every logger."""

    of_group = "logger"
    group: Text | None
    run_name: Text | None
    images_every: Count | None
    image_cases: Whole
    artifacts: Switch


class LocalLogger(LoggerOptions):
    """metrics.csv alone, or TensorBoard's event files too."""

    name: Literal["csv", "tensorboard"]


class WandB(LoggerOptions):
    """And Weights & Biases."""

    name: Literal["wandb"]
    project: Text
    entity: Text | None
    mode: Literal["online", "offline", "disabled"] | None
    timeout_s: Positive


Logger = Annotated[LocalLogger | WandB, Field(discriminator="name")]
