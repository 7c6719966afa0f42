"""`overnight upgrade`: from the server that runs to the one of this program, and back again when that fails."""

from overnight.compose.upgrade.guard import carried_out
from overnight.compose.upgrade.plan import Options, planned
from overnight.compose.upgrade.telling import Outcome, Tell, Told

__all__ = ["Options", "Outcome", "Tell", "Told", "carried_out", "planned"]
