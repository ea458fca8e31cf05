"""The forms of what comes with questions of private methods."""

from collections.abc import Callable, Mapping

from client.egress.questions import NUMBER, RUN, Form, Forms, Values
from client.site import Site

LARGEST_PRIVATE = 1e6
"""Largest number in a question of a private method."""

STEP = {"run": RUN, "step": NUMBER}


def private_forms(
    size: Callable[[Site], tuple[int, ...]], *names: str
) -> Callable[[Site, Values], Forms]:
    """Return the forms of a private method's arrays; ``size`` returns the shape of its weights."""

    def forms(site: Site, _: Values) -> Forms:
        n_classes = site.config.task.n_classes
        low, high = -LARGEST_PRIVATE, LARGEST_PRIVATE
        shapes: Mapping[str, tuple[int, ...]] = {
            "weights": size(site),
            "mean": (size(site)[-1] - 1,),
            "scale": (),
            "offset": (n_classes,),
            "calibration": (2, n_classes),
        }
        # A weight above 1 would make a clipped gradient longer than what is paid for.
        bounded = {
            "class_weight": Form((n_classes,), 0, 1),
            "base_rates": Form((n_classes,), 0, high),
        }
        return {n: bounded.get(n) or Form(shapes[n], low, high) for n in names}

    return forms
