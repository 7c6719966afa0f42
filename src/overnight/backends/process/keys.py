"""The secret of each turn: derived from one key of the data directory, so that no turn's secret is stored anywhere."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path

KEY_FILE = "keeper.key"


class TurnSecrets:
    """Knows the secret to every nonce. The key file must be hidden from agents; the data directory is."""

    def __init__(self, data_dir: Path) -> None:
        self._key = _read_or_make(data_dir / KEY_FILE)

    def new(self) -> tuple[str, str]:
        """A fresh nonce, which may be seen, and its secret."""
        nonce = secrets.token_hex(16)
        return nonce, self.of(nonce)

    def of(self, nonce: str) -> str:
        """The secret to a nonce."""
        return hmac.new(self._key, nonce.encode(), hashlib.sha256).hexdigest()


def _read_or_make(path: Path) -> bytes:
    """Whoever comes first makes the key; all others read the same one."""
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, secrets.token_hex(32).encode())
            os.fsync(handle)
        finally:
            os.close(handle)
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    return path.read_bytes()
