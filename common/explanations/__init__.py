"""Why a model says what it says: where in an image its evidence lies."""
