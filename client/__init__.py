"""What runs inside a hospital."""

import common.calls_home  # noqa: F401  (before any library)
