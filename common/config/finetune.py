"""The settings of staged fine-tuning."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from common.config.fields import Counts, Names, Positives, fill_in, split
from common.config.imbalance import ImbalanceConfig

Strategy = Literal["fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "scaffold", "qfedavg"]

TRAIN, FAIRLY = "train", "train_fairly"
"""Question for the training of a round, and the same for the sums of q-FedAvg."""

FORMER = "former"
"""Question that lets a site keep what the parent's model says of its images."""

_STAGES = ("head", "blocks.5", "all")
_PACE = {"head": (20, 3e-3), "all": (100, 5e-4)}
_PACE_BETWEEN = (30, 1e-3)
"""Default rounds and highest learning rate of a stage."""

_BEST_ROUNDS = {"head": 20, "all": 300}
BEST: Mapping[str, object] = {"augmentation": "strong", "mixup": 0.8, "validate_every": 30}
"""What `quality=best` sets beside rounds: views that are not learnt by heart."""


class FinetuneConfig(ImbalanceConfig):
    """What decides how a network is fine-tuned; stages, rounds, epochs and rates go together."""

    quality: Literal["usual", "best"] = Field(
        default="usual",
        description="best: 2.3 times as many rounds, strong augmentation and mixed images, where"
        " these are not set",
    )
    stages: Names = Field(
        default=_STAGES,
        description="what is trained in turn: the head, a module and all after it, all",
    )
    rounds: Counts = Field(default=(), description="rounds of each stage; empty: its default")
    local_epochs: Positives = Field(
        default=(0.05,), description="share of its images that a site sees in a round"
    )
    batch: int = Field(
        default=64,
        ge=1,
        description="images of a step, over all sites in proportion to theirs",
    )
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="local optimiser")
    lr: Positives = Field(
        default=(), description="highest learning rate of each stage; empty: its default"
    )
    layer_decay: float = Field(
        default=0.9, gt=0, le=1, description="learning rate of a group of layers over the next's"
    )
    weight_decay: float = Field(default=0.02, ge=0, description="decay of weights, not of biases")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of sgd")
    moments_every: int = Field(
        default=1,
        ge=1,
        description="rounds from one averaging of the optimiser's moments to the next; they are two"
        " thirds of AdamW's bytes, and between averagings each site goes on with its own",
    )
    warmup: float = Field(
        default=0.1, ge=0, lt=1, description="share of a stage in which its learning rate rises"
    )
    clip: float = Field(default=5.0, ge=0, description="largest norm of a gradient; 0 for any")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="share of features dropped")
    smoothing: float = Field(default=0.05, ge=0, lt=1, description="label smoothing")

    distillation: float = Field(
        default=0.0,
        ge=0,
        description="of a run with a parent: weight of the loss by which the network's answers stay"
        " those of the parent's on the same images",
    )
    unlabelled_weight: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="weight of an image without a diagnosis, which the round's model gives a"
        " pseudo-label, beside one with; 0: such images are left out",
    )
    augmentation: Literal["usual", "strong"] = Field(
        default="usual",
        description="how views differ from images; strong: by any angle, and more in colours",
    )
    mixup: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="share of the steps, where all is open, on images that are mixed in pairs: half"
        " by mixup, half by CutMix",
    )
    focal_gamma: float = Field(default=2.0, ge=0, description="exponent of the focal loss")
    priors: Literal["global", "local"] = Field(
        default="global", description="class frequencies of all sites together, or of each site"
    )

    strategy: Strategy = Field(default="fedavg", description="how the coordinator aggregates")
    server_lr: float = Field(
        default=1.0, gt=0, description="learning rate of fedavgm, fedadam and fedyogi"
    )
    server_momentum: float = Field(
        default=0.9, ge=0, lt=1, description="momentum of fedavgm, fedadam and fedyogi"
    )
    proximal: float = Field(default=0.01, gt=0, description="pull of fedprox to the round's start")
    q: float = Field(
        default=1.0,
        ge=0,
        le=10,
        description="of qfedavg: the larger, the more do sites with a large loss count; 0: all"
        " sites alike, however many images they have",
    )
    fraction: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="share of the sites in a round, drawn anew where moments are averaged",
    )
    personal: int = Field(
        default=0, ge=0, description="epochs of a head for each site alone, evaluated too; 0: none"
    )
    validate_every: int = Field(
        default=15, ge=1, description="rounds between evaluations on the validation lesions"
    )
    patience: int = Field(
        default=0, ge=0, description="evaluations without improvement that end a stage; 0 for any"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in_pace(cls, values: Any) -> Any:
        """Give stages the rounds and rates that suit how much they open, where none are given."""
        stages = split(values.get("stages", _STAGES))
        named = stages if isinstance(stages, tuple | list) else ()
        paces = [_PACE.get(str(stage), _PACE_BETWEEN) for stage in named]
        if values.get("quality") == "best":
            paces = [
                (_BEST_ROUNDS.get(str(stage), n), rate)
                for stage, (n, rate) in zip(named, paces, strict=True)
            ]
            values = fill_in(values, BEST)
        return fill_in(values, {"rounds": [n for n, _ in paces], "lr": [rate for _, rate in paces]})

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for key in ("rounds", "local_epochs", "lr"):
            if len(getattr(self, key)) not in (1, len(self.stages)):
                raise ValueError(
                    f"'{key}' has {len(getattr(self, key))} values for {len(self.stages)} stages; "
                    "give one for each, or one for all"
                )
        if self.strategy == "scaffold" and (self.optimizer != "sgd" or self.momentum):
            raise ValueError("'strategy' scaffold corrects plain SGD; set optimizer=sgd momentum=0")
        return self
