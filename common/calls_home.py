"""What libraries send, look up or fetch by themselves, switched off when this is imported.

Libraries read these variables when they are imported, and pass them on to the processes that they
start. So each of this program's packages imports this module before anything else. It writes over
what was set before: an environment is inherited from an image, a profile or a service file, and
what leaves a hospital is not decided there. Nothing of this program needs what is off.

What a user asks for is fetched as before: timm's weights, for instance, from a model hub.
"""

import os

SWITCHES = {
    # From 1.29 on: events of its use, under an identifier that it keeps in the home folder.
    "ORT_DISABLE_TELEMETRY": "1",
    # An event at each start and end of a process, under an identifier of this installation.
    "FLWR_TELEMETRY_ENABLED": "0",
    # Versions of Flower, Python and the system, once a day.
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    # Would download the app's dependencies anew with each run.
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    # Versions, hardware and libraries of each simulation, every hour.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Where it would listen at all of this machine's addresses, and ask the way to a public one to
    # learn its own, it takes the loopback address.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    # Versions of Python and of libraries, with each download that a user asks for.
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
"""By the names that the libraries give them: ONNX Runtime, Flower, Ray, Hugging Face."""

os.environ.update(SWITCHES)
