"""One module for each promise: `check(history)` names every way in which it was broken."""
