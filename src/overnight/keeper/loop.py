"""The smallest event loop that will do: one poll, callbacks by descriptor, one alarm on the boot-time clock."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterable

from overnight.keeper.kernel import Alarm, boot_now

LONGEST_NAP_S = 5.0
"""Without an alarm that counts suspension: how late a deadline may be noticed."""


class Loop:
    """Watches descriptors. Nothing here blocks but `wait`."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._alarm = Alarm()
        if self._alarm.fd >= 0:
            self.watch(self._alarm.fd, select.POLLIN, lambda _: self._alarm.clear())

    def watch(self, handle: int, events: int, callback: Callable[[int], None]) -> None:
        """Call back with the events when one of `events` happens; 0 means not at all.

        Replaces what was said about that number before, which may have meant another, closed descriptor.
        """
        known = self._watched.get(handle)
        if events == 0:
            self.forget(handle)
            return
        if known is None or known[0] != events:
            self._poll.register(handle, events)
        self._watched[handle] = (events, callback)

    def forget(self, handle: int) -> None:
        """Watch no more."""
        if self._watched.pop(handle, None) is not None:
            self._poll.unregister(handle)

    def wait(self, dues: Iterable[float | None]) -> None:
        """Wait for an event or the earliest of `dues` (boot-clock seconds), then call back."""
        due = min((due for due in dues if due is not None), default=None)
        for handle, events in self._poll.poll(self._nap_ms(due)):
            known = self._watched.get(handle)
            if known is not None and events & select.POLLNVAL:
                self.forget(handle)
            elif known is not None:
                known[1](events)

    def close(self) -> None:
        """For a forked child: it gets a loop of its own."""
        if self._alarm.fd >= 0:
            os.close(self._alarm.fd)

    def _nap_ms(self, due: float | None) -> int | None:
        if self._alarm.fd >= 0:
            self._alarm.set(due)
            return None
        return None if due is None else max(0, int(min(due - boot_now(), LONGEST_NAP_S) * 1000) + 1)


class SignalPipe:
    """Signals as bytes in a pipe, so that a poll wakes up for them and none is missed."""

    def __init__(self, loop: Loop, signums: Iterable[int]) -> None:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for signum in signums:
            signal.signal(signum, _do_nothing)
        for signum in (signal.SIGHUP, signal.SIGINT):
            signal.signal(signum, signal.SIG_IGN)
        self._seen: set[int] = set()
        loop.watch(self._read, select.POLLIN, self._note)

    def take(self) -> set[int]:
        """The signals that came since the last call."""
        seen, self._seen = self._seen, set()
        return seen

    def close(self) -> None:
        """For a forked child: it gets a pipe of its own."""
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def _note(self, _: int) -> None:
        self._seen.update(os.read(self._read, 4096))


def _do_nothing(signum: int, frame: object) -> None:
    """The byte in the pipe says everything."""
