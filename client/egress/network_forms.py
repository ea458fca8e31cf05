"""What a network's tensors must look like in a question."""

from client.egress.questions import Form, Forms, Values
from client.site import Site
from common.finetune.update import LARGEST_TENSOR


def tensor(shape: tuple[int, ...], low: float = -LARGEST_TENSOR) -> Form:
    """Return the form of one tensor; ``low`` is the least number in it."""
    return Form(shape, low, LARGEST_TENSOR, "<f4")


def whole_network(site: Site, _: Values) -> Forms:
    """Return the forms of a network's weights; those that are as pretrained need not come."""
    from common.networks.network import run_network  # it imports PyTorch

    pretrained = run_network(site.config).pretrained
    return {name: tensor(tuple(p.shape)) for name, p in pretrained.items()}
