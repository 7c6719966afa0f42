"""The last look before an agent begins: does the finished sandbox have the mounts that it was meant to have?

A workspace can be changed by others while its sandbox is being made, by processes of the same agent for one. A folder
that was looked at may be a link when it is mounted, and then something else is mounted, or somewhere else. Mounts that
stand cannot be changed any more. So it is they that are looked at, from inside and before the agent's command: at the
workspace's path stands a mount of the very folder that was checked, and at the path of each guard a mount of what lies
there in that folder.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

# Builtins of the shell but for `stat`. Fields of mountinfo: device, root of the mount in its file system, mount point.
_SCRIPT: Final = """
s=$1 w=$2 n=$3 m=$4 k=$5 g=$6; shift 6
no() { echo "bwrap: $1 has been changed while its sandbox was made" >&2; exit 1; }
[ "$($s -Lc %d:%i -- "$w" 2>/dev/null)" = "$n" ] || no "the workspace"
c=0 b= d=
while read -r _ _ dev root point _; do
  [ "$point" = "$m" ] && c=$((c + 1)) b=$root d=$dev
done < /proc/self/mountinfo
[ "$c" -gt "$k" ] || no "the workspace"
[ "$b" = / ] && b=
f='
'
while read -r _ _ dev root point _; do
  [ "$dev $root" = "$d $b${point#"$m"}" ] && f="$f$point
"
done < /proc/self/mountinfo
set -f; IFS='
'
for p in $g; do
  case $f in *"
$p
"*) ;; *) no "$p" ;; esac
done
exec "$@"
"""


def look(workspace: Path, wanted: str | None, guards: Iterable[Path]) -> tuple[str, ...]:
    """What is put before a command, so that it only begins if all is well. Raises OSError.

    `wanted` is "device:inode" of the workspace; None: of the folder that is there now.
    """
    facts = workspace.stat(follow_symlinks=False)
    number = wanted or f"{facts.st_dev}:{facts.st_ino}"
    known = list(_mount_points())
    name = _escaped(workspace)
    own = [_escaped(path) for path in guards if not _is_mounted(_escaped(path), name, known)]
    program = shutil.which("stat", path=os.defpath) or "stat"
    told = (program, str(workspace), number, name, str(known.count(name)), "\n".join(own))
    return ("/bin/sh", "-c", _SCRIPT, "sh", *told)


def _is_mounted(path: str, workspace: str, known: list[str]) -> bool:
    """Whether the host has a file system of its own there, or between there and the workspace."""
    between = [point for point in known if point != workspace and point.startswith(f"{workspace}/")]
    return any(path == point or path.startswith(f"{point}/") for point in between)


def _mount_points() -> Iterator[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            yield line.split(" ")[4]


def _escaped(path: Path) -> str:
    """As the kernel writes a path into mountinfo."""
    name = os.fspath(path)
    for char in ("\\", " ", "\t", "\n"):
        name = name.replace(char, f"\\{ord(char):03o}")
    return name
