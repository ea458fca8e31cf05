"""Which groups have too few lesions to be counted apart, and are counted together."""

import numpy as np

from common.arrays import Bools, Ints
from common.statistics.confusion import count


def small_lines(
    lines: Ints, columns: Ints, lesions: Ints, shape: tuple[int, int], least: int
) -> Bools | None:
    """Choose the lines of a table of groups that are counted together.

    A cell is a group. A line with a cell of too few lesions is counted together whole, with the
    next larger lines until what is together has enough lesions in each column: else a cell that is
    not told would be the column's total minus the cells that are. A list of groups is a table with
    one column.

    Parameters
    ----------
    lines, columns : (n,) the cell of each image.
    lesions : (n,) number of its lesion.
    shape : number of lines and of columns.
    least : smallest number of lesions that is counted apart.

    Returns
    -------
    (lines,) whether a line is counted together with others; None where all lines together are too
    few, so that nothing is counted.
    """
    cells = np.unique(np.stack([lines, columns, lesions]), axis=1)
    counts = count(shape, cells[0], cells[1])
    totals = counts.sum(axis=1)
    together = np.asarray(_few(counts, least).any(axis=1))
    while _few(_in_columns(cells, together, shape[1]), least).any():
        larger = np.flatnonzero((totals > 0) & ~together)
        if not len(larger):
            break
        together[larger[totals[larger].argmin()]] = True
    return None if _few(np.array(len(np.unique(lesions))), least).any() else together


def _in_columns(cells: Ints, together: Bools, columns: int) -> Ints:
    """Count the lesions (columns,) of the lines that are counted together."""
    chosen = np.unique(cells[1:, together[cells[0]]], axis=1)
    return count((columns,), chosen[0])


def _few(counts: Ints, least: int) -> Bools:
    return np.asarray((counts > 0) & (counts < least))
