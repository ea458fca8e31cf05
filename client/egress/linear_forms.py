"""What a finished linear model must look like in a question."""

from client.egress.questions import LARGEST, LARGEST_MAP, Form, Forms, Values
from client.site import Site


def linear_model(site: Site, _: Values) -> Forms:
    """Return the forms of a linear model; that its sizes fit together is the method's to check."""
    return {
        "mean": Form((site.n_features,), -LARGEST_MAP, LARGEST_MAP),
        "matrix": Form((site.n_features, None), -LARGEST_MAP, LARGEST_MAP),
        "fourier": Form((None,), 0, LARGEST_MAP),
        "unit": Form((), 0, 1),
        "clip": Form((), 0, LARGEST),
        "powers": Form((site.n_features,), 0, 1),
        "weights": Form((site.config.task.n_classes, None)),
    }
