"""Where Overnight keeps its things on this machine: data, configuration, and the runtime folder of the user."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from overnight.errors import ConfigInvalid


def data_home(environment: Mapping[str, str]) -> Path:
    """The data directory when no setting names one."""
    return _xdg(environment, "XDG_DATA_HOME", ".local/share") / "overnight"


def config_file(environment: Mapping[str, str]) -> Path:
    """The operator's file when `OVERNIGHT_CONFIG` names no other."""
    return _xdg(environment, "XDG_CONFIG_HOME", ".config") / "overnight" / "overnight.toml"


def runtime_dir(environment: Mapping[str, str]) -> Path:
    """The user's own folder for sockets and `server.json`: mode 0700, made when it is missing.

    `$XDG_RUNTIME_DIR/overnight`, else `overnight-UID` beneath the temporary directory. Raises ConfigInvalid when
    somebody else made that folder first, or it is a link: whoever owns it could read the token in it.
    """
    base = environment.get("XDG_RUNTIME_DIR", "")
    if base and Path(base).is_absolute() and _own_folder(Path(base)):
        return private_dir(Path(base) / "overnight")
    return private_dir(Path(tempfile.gettempdir()) / f"overnight-{os.getuid()}")


def data_key(data_dir: Path) -> str:
    """A short name for a data directory (sockets have room for about 100 characters), the same for every spelling."""
    return hashlib.sha256(os.fsencode(os.path.realpath(data_dir))).hexdigest()[:16]


def private_dir(folder: Path) -> Path:
    """`folder`, made when missing, and certainly a directory of this user that nobody else can look into.

    Raises ConfigInvalid otherwise.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not _own_folder(folder):
            raise ConfigInvalid(
                f"{folder} is not a private folder of this user",
                mend="remove it, or set XDG_RUNTIME_DIR to a folder of your own",
            ) from None
        folder.chmod(0o700)
    except OSError as error:
        raise unmakable(folder, error) from None
    return folder


def unmakable(folder: Path, error: OSError) -> ConfigInvalid:
    """The error for a folder that is needed and cannot be made."""
    return ConfigInvalid(
        f"the folder {folder} cannot be made: {error.strerror or error}",
        mend="set OVERNIGHT_DATA_DIR (or XDG_RUNTIME_DIR) to a folder that you may write to",
    )


def _own_folder(folder: Path) -> bool:
    try:
        facts = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid()


def home(environment: Mapping[str, str]) -> Path:
    """The user's home directory."""
    named = environment.get("HOME", "")
    return Path(named) if named and Path(named).is_absolute() else Path.home()


def _xdg(environment: Mapping[str, str], variable: str, fallback: str) -> Path:
    # The base-directory rules say that a relative path in these variables is to be ignored.
    named = environment.get(variable, "")
    return Path(named) if named and Path(named).is_absolute() else home(environment) / fallback
