"""`overnight handover`: make way for the next server."""

from __future__ import annotations

from overnight.cli.options import JsonFlag
from overnight.cli.output import emit, say


def handover(as_json: JsonFlag = False) -> None:
    """End the server and leave its agents working for the next one.

    For an upgrade in place: start the new `overnight up` within the grace, and it takes the agents over.
    """
    from overnight.cli.connect import call

    call(lambda client: client.handover())
    words = "the server ends now; its agents go on and wait for the next: overnight up"
    emit({"done": words}) if as_json else say(words)
