"""The layouts that data folders come in: each reads its own tables into the same images."""
