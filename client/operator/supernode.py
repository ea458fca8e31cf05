"""Flower's SuperNode, whose log has the form that the operator asks for."""

from common.flower_inside import run_supernode
from common.logs import choose_form


def main() -> None:
    """Run the command ``flower-supernode``."""
    choose_form()
    run_supernode()


if __name__ == "__main__":
    main()
