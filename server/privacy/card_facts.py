"""What the model card says of a private training."""

from common.config.run import RunConfig
from common.json_types import JsonObject


def privacy_facts(config: RunConfig, training: JsonObject) -> dict[str, object]:
    """Return the promise, whose noise keeps it, and how much noise that is.

    Parameters
    ----------
    training : the details of the result.
    """
    promise = f"epsilon {config.epsilon:g}, delta {config.delta:g}, for each `{config.unit}`"
    whose = {
        "site": "each site's own noise, whoever reads its messages",
        "distributed": f"the noise of {config.honest} sites together, whoever reads only the sum",
    }
    return {
        "differential privacy": promise if config.epsilon else "none is promised",
        "by": whose[config.trust],
        "noise over the clipping norm": f"{training['noise']:.3g}",
        "steps": config.steps,
        "test lesions": "not private",
    }
