"""Many hospitals on one machine, and the command line."""

import common.calls_home  # noqa: F401  (before any library)
