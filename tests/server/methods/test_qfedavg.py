"""Fine-tuning with q-FedAvg is algorithm 2 of Li et al. 2020, written plainly."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from common.data.dataset import Dataset
from common.data.splits import TEST
from common.features.extract import content_keys
from common.networks.activations import activations
from common.networks.network import HEAD, run_network
from simulations.runtimes.experiment import rounds, simulate
from tests.finetuning import model_of, quick, small_dataset, spread

Q, RATE, ROUNDS = 2.0, 0.2, 3
SITES = ("one", "three", "two")
Data = dict[str, tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture(scope="module")
def dataset(synthetic_folder: Path) -> Dataset:
    return small_dataset(synthetic_folder, images=30, validation=False)


def _site_of(number: int, image: object) -> str:
    return SITES[0] if number % 6 == 0 else SITES[1 + number % 2]


def _objective(head: nn.Linear, X: Any, y: Any, weight: torch.Tensor) -> torch.Tensor:
    losses = nn.functional.cross_entropy(head(X), y, reduction="none")
    return (losses * weight[y]).mean()


def _algorithm_2(
    sites: Data, adamw: bool, every: int, weight: torch.Tensor
) -> tuple[np.ndarray, np.ndarray]:
    """Take two local steps a round, each on all of a site's images.

    AdamW's moments are averaged after ``every`` rounds; until then each site has its own.
    """
    n_features = next(iter(sites.values()))[0].shape[1]
    w = [torch.zeros(7, n_features), torch.zeros(7)]
    moments: dict[str, Any] = {site: [{}, {}] for site in sites}
    epochs = 2.0 * ROUNDS
    for t in range(ROUNDS):
        rates = [RATE * (1 + math.cos(math.pi * (2 * t + e + 0.5) / epochs)) / 2 for e in (0, 1)]
        L = 1 / np.mean(rates)
        delta = [torch.zeros_like(a) for a in w]
        h, pulls, ends = 0.0, [], []
        for site, (X, y) in sites.items():
            head = nn.Linear(n_features, 7)
            for p, a in zip(head.parameters(), w, strict=True):
                p.data = a.clone()
            optimizer: Any = torch.optim.SGD(head.parameters(), lr=1.0)
            if adamw:
                optimizer = torch.optim.AdamW(head.parameters(), lr=1.0, weight_decay=0.0)
                for p, state in zip(head.parameters(), moments[site], strict=True):
                    optimizer.state[p].update({k: a.clone() for k, a in state.items()})

            F = _objective(head, X, y, weight).item()
            for rate in rates:
                optimizer.zero_grad()
                _objective(head, X, y, weight).backward()
                optimizer.param_groups[0]["lr"] = rate
                optimizer.step()
            squared = 0.0
            for a, d, p in zip(w, delta, head.parameters(), strict=True):
                dw = L * (a - p.detach())
                scale = torch.ones_like(dw)
                if adamw:
                    state = optimizer.state[p]
                    mean = state["exp_avg_sq"] / (1 - 0.999 ** state["step"])
                    scale = mean.sqrt() + 1e-8
                squared += float((dw**2 * scale).sum())
                d += F**Q * dw
            h += Q * F ** (Q - 1) * squared + L * F**Q
            pulls.append(F**Q)
            ends.append([optimizer.state[p] for p in head.parameters()])
        w = [a - d / h for a, d in zip(w, delta, strict=True)]
        if adamw and (t + 1) % every:
            moments = dict(zip(sites, ends, strict=True))
        elif adamw:
            mean_of_all = [
                {
                    k: sum(f * end[i][k] for f, end in zip(pulls, ends, strict=True)) / sum(pulls)
                    for k in ("exp_avg", "exp_avg_sq", "step")
                }
                for i in range(2)
            ]
            moments = dict.fromkeys(sites, mean_of_all)
    assert max(pulls) > 1.05 * min(pulls)
    return w[0].numpy(), w[1].numpy()


@pytest.mark.parametrize(
    ("optimizer", "secure", "every"),
    [("sgd", False, 1), ("sgd", True, 1), ("adamw", False, 1), ("adamw", False, 2)],
)
def test_training_is_the_papers_algorithm(
    dataset, network_file, cache, tmp_path, optimizer, secure, every
) -> None:
    spread(dataset, tmp_path, _site_of)
    train = dataset.select(dataset.splits != TEST)
    config = quick(
        tmp_path,
        network_file,
        cache=cache,
        strategy="qfedavg",
        q=Q,
        stages=(HEAD,),
        rounds=ROUNDS,
        local_epochs=2.0,
        batch=len(train),
        lr=RATE,
        optimizer=optimizer,
        moments_every=every,
        secure=secure,
        validate_every=100,
        **{"views": 1, "dropout": 0, "smoothing": 0, "weight_decay": 0, "clip": 0, "warmup": 0},
        **({} if optimizer == "adamw" else {"momentum": 0}),
    )
    keys = content_keys(train)
    at_cut = activations(run_network(config), [HEAD], train, keys, config.feature_spec, cache)[HEAD]
    X, y = torch.from_numpy(at_cut[:, 0].astype(np.float32)), torch.from_numpy(train.labels)
    first = np.unique(dataset.by_lesion.index, return_index=True)[1]
    of_lesion = {dataset.images[i].lesion_id: _site_of(n, None) for n, i in enumerate(first)}
    names = np.array([of_lesion[image.lesion_id] for image in train.images])
    counts = np.bincount(train.labels, minlength=7)
    weight = np.where(counts > 0, np.maximum(counts, 1.0) ** -0.7, 0)
    weight = torch.from_numpy(weight * len(train) / (weight @ counts)).float()
    data = {site: (X[names == site], y[names == site]) for site in SITES}
    assert len({len(of_site) for _, of_site in data.values()}) > 1
    expected = _algorithm_2(data, optimizer == "adamw", every, weight)
    metrics = simulate(config)
    assert metrics["training"]["rounds"] == ROUNDS
    assert {e["question"] for e in rounds(config.out)} >= {"train_fairly"}
    found = model_of(config).weights
    for name, theirs in zip(("head.weight", "head.bias"), expected, strict=True):
        np.testing.assert_allclose(found[name], theirs, rtol=0, atol=2e-5, err_msg=name)
