"""The scripted agent: does exactly what a JSON script says, however rude. For tests; standard library only.

`python scripted_agent.py SCRIPT [--state FILE]`, SCRIPT a path or the JSON itself. The script is a list of moves, or
a list of lists: one for each turn, the last one repeated (then `--state` names the file that counts the turns).
A move is `[name, arguments…]` or an object with one key; the moves are the methods of `Agent` that say `move`.
`$N` in printed lines is the number of the line, `$TURN` the turn.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

OUT, ERR = 1, 2


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, however often the pipe takes only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Agent:
    """Carries out moves, one after the other."""

    def __init__(self, turn: int) -> None:
        self.turn = turn
        self.lines = 0
        self.input = b""

    def play(self, moves: list[Any]) -> None:
        """Do every move."""
        for entry in moves:
            name, arguments = next(iter(entry.items())) if isinstance(entry, dict) else (entry[0], entry[1:])
            move = getattr(self, f"move_{name}")
            if isinstance(arguments, dict):
                move(**arguments)
            else:
                move(*(arguments if isinstance(arguments, list) else [arguments]))

    def move_print(self, text: str) -> None:
        """A line on stdout."""
        self._line(OUT, text)

    def move_stderr(self, text: str) -> None:
        """A line on stderr."""
        self._line(ERR, text)

    def move_half(self, text: str) -> None:
        """Text without a line end."""
        write_all(OUT, self._filled(text).encode())

    def move_hex(self, digits: str) -> None:
        """Raw bytes, whatever they are."""
        write_all(OUT, bytes.fromhex(digits))

    def move_bytewise(self, text: str, pause: float = 0.002) -> None:
        """Text split at every byte, so that characters arrive in pieces."""
        for byte in text.encode():
            write_all(OUT, bytes([byte]))
            time.sleep(pause)

    def move_lines(self, count: int, text: str = "line $N", per_second: float = 0, burst: int = 1) -> None:
        """`count` numbered lines, as fast as they are taken or at a rate."""
        began = time.monotonic()
        for start in range(0, count, max(burst, 1 if per_second else 1000)):
            size = min(max(burst, 1 if per_second else 1000), count - start)
            numbered = [self._numbered(text) for _ in range(size)]
            write_all(OUT, "".join(f"{line}\n" for line in numbered).encode())
            if per_second:
                time.sleep(max(0.0, began + (start + size) / per_second - time.monotonic()))

    def move_lines_until(self, path: str, per_second: float, text: str = "line $N") -> None:
        """Numbered lines at a rate until a file exists; then `PATH.count` says how many there were."""
        began, count = time.monotonic(), 0
        while not Path(path).exists():
            self._line(OUT, text)
            count += 1
            time.sleep(max(0.0, began + count / per_second - time.monotonic()))
        _publish(Path(path + ".count"), str(count))

    def move_long_line(self, size: int, letter: str = "x") -> None:
        """One line of that many bytes."""
        piece = (letter * 65536).encode()
        while size > 0:
            write_all(OUT, piece[: min(size, len(piece))])
            size -= len(piece)
        write_all(OUT, b"\n")

    def move_sentinel(self, **data: object) -> None:
        """A sentinel line of Overnight's."""
        self._line(OUT, json.dumps({"__overnight__": data}))

    def move_environment(self, path: str) -> None:
        """All environment variables as JSON into a file."""
        Path(path).write_text(json.dumps(dict(os.environ)), encoding="utf-8")

    def move_descriptors(self, path: str) -> None:
        """The numbers of all open descriptors as JSON into a file; the one that lists them is gone by then."""
        listed = [int(name) for name in os.listdir("/proc/self/fd")]
        numbers = sorted(number for number in listed if Path(f"/proc/self/fd/{number}").exists())
        Path(path).write_text(json.dumps(numbers), encoding="utf-8")

    def move_pid(self, path: str) -> None:
        """Our process id into a file."""
        _publish(Path(path), str(os.getpid()))

    def move_write(self, path: str, text: str) -> None:
        """A file with that text."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        _publish(target, self._filled(text))

    def move_append(self, path: str, text: str) -> None:
        """Text at the end of a file."""
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(self._filled(text))

    def move_remove(self, path: str) -> None:
        """A file gone."""
        Path(path).unlink(missing_ok=True)

    def move_link(self, path: str, target: str) -> None:
        """A symbolic link."""
        Path(path).unlink(missing_ok=True)
        Path(path).symlink_to(target)

    def move_wait_for(self, path: str, within: float = 300) -> None:
        """Wait until a file exists; exit status 97 when it does not come."""
        deadline = time.monotonic() + within
        while not Path(path).exists():
            if time.monotonic() > deadline:
                raise SystemExit(97)
            time.sleep(0.005)

    def move_sleep(self, seconds: float) -> None:
        """Do nothing for so long."""
        time.sleep(seconds)

    def move_forever(self) -> None:
        """Do nothing until killed."""
        while True:
            signal.pause()

    def move_read_prompt(self) -> None:
        """Read standard input to its end; `echo_prompt` shows it."""
        self.input = sys.stdin.buffer.read()

    def move_echo_prompt(self) -> None:
        """Print what `read_prompt` read."""
        write_all(OUT, self.input + b"\n")

    def move_echo_lines(self, count: int = 1) -> None:
        """Read that many lines of standard input and print each after `got `."""
        for _ in range(count):
            self._line(OUT, "got " + sys.stdin.readline().rstrip("\n"))

    def move_ignore(self, *names: str) -> None:
        """Ignore those signals from now on."""
        for name in names or ("SIGTERM", "SIGINT", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)

    def move_on_signal(self, name: str, moves: list[Any]) -> None:
        """Do those moves when the signal comes."""
        signal.signal(getattr(signal, name), lambda *_: self.play(moves))

    def move_child(self, argv: list[str]) -> None:
        """Start a child and do not wait for it; it holds our pipes."""
        subprocess.Popen(argv)

    def move_run(self, argv: list[str]) -> None:
        """Run a command to its end."""
        subprocess.run(argv, check=False)

    def move_daemon(self, pid_file: str, *, ignore_term: bool = True, clear_env: bool = True) -> None:
        """A grandchild in a session of its own, with a cleared environment, deaf to SIGTERM, that never ends."""
        program = "import os,signal,sys\n"
        program += "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" if ignore_term else ""
        program += "os.setsid()\nif os.fork(): os._exit(0)\n"
        program += "open(sys.argv[1]+'.part','w').write(str(os.getpid()))\n"
        program += "os.rename(sys.argv[1]+'.part', sys.argv[1])\nwhile True: signal.pause()\n"
        argv = [sys.executable, "-I", "-S", "-c", program, pid_file]
        subprocess.Popen(
            argv,
            env={} if clear_env else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ).wait()

    def move_kill_self(self, name: str = "SIGKILL") -> None:
        """Die by a signal."""
        os.kill(os.getpid(), getattr(signal, name))

    def move_exit(self, status: int = 0) -> None:
        """Leave at once with that status."""
        os._exit(status)

    def _line(self, descriptor: int, text: str) -> None:
        write_all(descriptor, (self._numbered(text) + "\n").encode())

    def _numbered(self, text: str) -> str:
        self.lines += 1
        return self._filled(text)

    def _filled(self, text: str) -> str:
        return text.replace("$N", str(self.lines)).replace("$TURN", str(self.turn))


def _publish(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.rename(path)


def _turn(state: str) -> int:
    with Path(state).open("ab") as file:
        file.write(b".")
        file.flush()
        return file.tell()


def main() -> None:
    """Load the script and play the turn that is due."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("script")
    parser.add_argument("--state")
    chosen = parser.parse_args()
    inline = chosen.script.lstrip().startswith("[")
    script = json.loads(chosen.script if inline else Path(chosen.script).read_text(encoding="utf-8"))
    turn = _turn(chosen.state) if chosen.state else 1
    if script and isinstance(script[0], list) and script[0] and not isinstance(script[0][0], str):
        script = script[min(turn, len(script)) - 1]
    Agent(turn).play(script)


if __name__ == "__main__":
    main()
