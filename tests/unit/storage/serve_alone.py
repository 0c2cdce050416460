"""A program for tests: runs the embedded server of a data directory, says where it is, and waits to be ended.

python serve_alone.py DATA_DIR [RUN_AS]
"""

import sys
import threading
from pathlib import Path

from switch.domain.errors import SwitchError
from switch.storage.embedded import EmbeddedPostgres


def main() -> int:
    run_as = sys.argv[2] if len(sys.argv) > 2 else ""
    server = EmbeddedPostgres(Path(sys.argv[1]), memory_mb=16, run_as=run_as)
    try:
        url = server.start()
    except SwitchError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{server.pid} {url}\n")
    sys.stdout.flush()
    if not sys.stdin.readline():  # whoever started us ended, or wants us to end
        server.stop()
        return 0
    threading.Event().wait(60)
    return 0


if __name__ == "__main__":
    sys.exit(main())
