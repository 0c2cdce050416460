"""Starts one program of PostgreSQL as somebody it agrees to run as, and bound to the life of its parent.

Run as a script by `run_as.py`, with nothing but the standard library, in a process of its own: what it does to itself
cannot be done safely between fork and exec of a process with threads.

    launch.py HOW UID GID PARENT FOLDER PROGRAM ARGUMENT...

HOW says who the program is:

    plain      the caller
    namespace  the caller, known as UID and GID inside a user namespace of its own (user_namespaces(7)): files stay the
               caller's, and PostgreSQL, which refuses root, finds none
    user       UID and GID, with no capability of root's left

FOLDER becomes the working directory before that, so that UID need not be able to walk to it. Exit status 70: it could not be
done, standard error says why.
"""

import ctypes
import os
import signal
import sys
from pathlib import Path

CANNOT = 70
_PR_SET_PDEATHSIG = 1
_CLONE_NEWUSER = 0x10000000


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _enter_namespace(libc: ctypes.CDLL, uid: int, gid: int) -> None:
    outer_uid, outer_gid = os.geteuid(), os.getegid()
    _check(libc.unshare(_CLONE_NEWUSER))
    Path("/proc/self/setgroups").write_text("deny", encoding="ascii")  # or the next line is refused
    Path("/proc/self/gid_map").write_text(f"{gid} {outer_gid} 1", encoding="ascii")
    Path("/proc/self/uid_map").write_text(f"{uid} {outer_uid} 1", encoding="ascii")


def launch(how: str, uid: int, gid: int, parent: int, folder: str, command: list[str]) -> None:
    """Become the program, or raise OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    os.umask(0o077)
    os.chdir(folder)
    if how == "namespace":
        _enter_namespace(libc, uid, gid)
    elif how == "user":
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    # After the change of user, which would clear it. SIGQUIT is PostgreSQL's immediate shutdown: SIGINT can hang in recovery.
    _check(libc.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT, 0, 0, 0))
    if os.getppid() != parent:  # it died before the line above
        raise OSError("the parent is gone")
    os.execv(command[0], command)  # noqa: S606 - this is the purpose of the script; no shell is wanted


if __name__ == "__main__":
    try:
        launch(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5], sys.argv[6:])
    except OSError as problem:
        sys.stderr.write(f"{sys.argv[6]} as {sys.argv[1]}: {problem}\n")
        sys.exit(CANNOT)
