"""Programs of the distribution that tests run. Where one is missing and we are root it is installed, once for all workers; where it cannot be had, the tests
that need it fail and say so.
"""

import fcntl
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

INSTALL_S = 600.0


@cache
def program(name: str, package: str) -> str:
    """The path of a program; installs its package when it has to and may."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    # One lock for all packages: the package manager has one too, and does not wait for it.
    lock = Path(tempfile.gettempdir()) / f"package-install-{os.geteuid()}.lock"
    with lock.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        found = shutil.which(name, path=path)
        said = "not installed, and only root can install it"
        if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
            said = _install(package)
            found = shutil.which(name, path=path)
    assert found is not None, f"these tests need {name} (Debian package {package}): {said}"
    return found


def _install(package: str) -> str:
    # A package that starts its service would take a port of the machine: it is told not to.
    policy = Path("/usr/sbin/policy-rc.d")
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n", encoding="ascii")
        policy.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    said = ""
    try:
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", package]):
            done = subprocess.run(
                ["apt-get", "-o", "DPkg::Lock::Timeout=300", *command],
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=INSTALL_S,
            )
            said = done.stderr[-400:]
    finally:
        if made:
            policy.unlink(missing_ok=True)
    return said
