"""A process whose threads all decide the same approvals at once: `python decider.py URL OPTION`, ids on stdin.

Prints one JSON line for each answer: `[approval id, status, the option that counts]`.
"""

import json
import os
import random
import sys
import threading
import urllib.error
import urllib.request

THREADS = 10


def ask(url: str, document: object = None) -> tuple[int, dict[str, object]]:
    """The answer to a request, whatever its status."""
    request = urllib.request.Request(
        url,
        data=None if document is None else json.dumps(document).encode(),
        headers={
            "Authorization": f"Bearer {os.environ['OVERNIGHT_TOKEN']}",
            "Content-Type": "application/json",
        },
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return int(answer.status), json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def decide(base: str, ids: list[str], option: str, begin: threading.Barrier, said: list[str]) -> None:
    """Decide all of them, in an order of this thread's own."""
    mixed = random.sample(ids, len(ids))
    digests = {id: ask(f"{base}/{id}")[1]["digest"] for id in mixed}
    begin.wait()
    for id in mixed:
        status, answer = ask(f"{base}/{id}/resolve", {"option": option, "digest": digests[id]})
        decision = answer.get("decision")
        said.append(json.dumps([id, status, decision["option"] if isinstance(decision, dict) else None]))


def main() -> None:
    """Let all threads loose at once."""
    base, option = f"{sys.argv[1]}/api/v1/approvals", sys.argv[2]
    ids = sys.stdin.read().split()
    begin, said = threading.Barrier(THREADS), list[str]()
    threads = [threading.Thread(target=decide, args=(base, ids, option, begin, said)) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("\n".join(said))


if __name__ == "__main__":
    main()
