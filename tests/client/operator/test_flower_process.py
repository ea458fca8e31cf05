"""The process that answers a message starts in little time."""

import subprocess
import sys

IMPORTS = """
import sys
from client.operator import flower_process
sys.argv[1:] = ["--help"]
try:
    flower_process.main()
finally:
    print(*sys.modules)
"""


def test_it_takes_flowers_options_and_imports_no_database_and_no_web_server():
    command = [sys.executable, "-P", "-c", IMPORTS]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--runtime-api-address" in run.stdout
    assert not {"alembic", "sqlalchemy", "fastapi.applications", "uvicorn"} & set(
        run.stdout.split()
    )
