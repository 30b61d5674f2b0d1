"""An ordinary user to run things as, where the tests run as root.

Makes a user of its own and removes it afterwards. A project below a directory that only root may
enter (a clone in /root) is shown to that user at its own path, in a mount namespace of its own.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# $1 = the project, $2 = its first ancestor that others cannot enter, or nothing; then the user.
_ENTER = """
set -e
project=$1 barred=$2 user=$3
shift 3
if [ -n "$barred" ]; then
    stash=$(mktemp -d)
    mount --bind "$project" "$stash"
    mount -t tmpfs -o mode=755 tmpfs "$barred"
    mkdir -p "$project"
    mount --bind "$stash" "$project"
fi
exec setpriv --reuid="$user" --regid="$user" --clear-groups -- "$@"
"""


@dataclass(frozen=True, slots=True)
class OrdinaryUser:
    """Attributes:
    directory: exists, belongs to the user, and can be reached by everybody.
    """

    name: str
    uid: int
    directory: Path

    def command(self, *argv: str | Path) -> list[str]:
        """`argv` as this user. To be run as root."""
        barred = next((str(p) for p in reversed(ROOT.parents) if not p.stat().st_mode & 1), "")
        enter = ["unshare", "--mount", "--propagation=private", "sh", "-c", _ENTER, "sh"]
        return [*enter, str(ROOT), barred, str(self.uid), *map(str, argv)]

    def environment(self) -> dict[str, str]:
        """What a login would set, and nothing of root's."""
        return {
            "HOME": str(self.directory),
            "USER": self.name,
            "LOGNAME": self.name,
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "TMPDIR": str(self.directory),
        }


def why_not() -> str:
    """Why no ordinary user can be had here, or an empty string."""
    if os.getuid() != 0:
        return "not run as root: all tests run as an ordinary user anyway"
    missing = [tool for tool in ("useradd", "setpriv", "unshare") if not shutil.which(tool)]
    return f"needs {', '.join(missing)}" if missing else ""


@contextmanager
def ordinary_user() -> Iterator[OrdinaryUser]:
    """A new user with a home of its own; both are gone afterwards."""
    name = f"nanosup{os.getpid()}"
    directory = Path(tempfile.mkdtemp(prefix="nanosup-user-", dir="/tmp"))
    subprocess.run(
        ["useradd", "--no-create-home", "--home-dir", str(directory), "--user-group", name],
        check=True,
    )
    try:
        uid = pwd.getpwnam(name).pw_uid
        shutil.chown(directory, name, name)
        directory.chmod(0o755)
        yield OrdinaryUser(name, uid, directory)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)
