"""The folder of a run: settings, rounds, checkpoint, model, card."""
