"""What runs at the coordinator."""

import common.calls_home  # noqa: F401  (before any library)
