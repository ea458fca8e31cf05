"""Judging a study's predictions: figures, intervals and paired tests of its arms."""
