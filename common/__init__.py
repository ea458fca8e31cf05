"""What hospitals and coordinator agree on."""

import common.calls_home  # noqa: F401  (before any library)
