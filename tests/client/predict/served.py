"""Serves the model that answers by the size of an image, and says which files it opens to write."""

import os
import sys
from dataclasses import replace

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def watch(event, arguments):
    if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
        print("wrote", arguments[0], file=sys.stderr, flush=True)


if __name__ == "__main__":
    from client.predict.serve import serve
    from common.data.metadata import BLOCKS
    from tests.client.predict.fakes import ABOUT, Model

    sys.dont_write_bytecode = True
    sys.addaudithook(watch)
    serve(Model(replace(ABOUT, metadata=tuple(BLOCKS))))
