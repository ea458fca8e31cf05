"""An app for Flower that loads a SuperLink."""
