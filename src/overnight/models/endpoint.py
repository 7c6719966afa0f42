"""Where models are to be had: one value for each service that the operator has configured, its key included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

EndpointKind = Literal["openai", "openai-chat", "anthropic", "google", "github-copilot", "scripted"]
"""What it speaks: `openai` is the Responses API, `openai-chat` Chat Completions, the rest is as it is called."""

KEY_VARIABLES: Final[Mapping[EndpointKind, tuple[str, ...]]] = {
    "openai": ("OPENAI_API_KEY",),
    "openai-chat": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "github-copilot": ("GITHUB_COPILOT_API_KEY", "GITHUB_COPILOT_API_TOKEN", "COPILOT_GITHUB_TOKEN"),
}
"""The providers that are there without being configured, and where their keys are looked for."""
USUAL_MODELS: Final[dict[str, str]] = {
    "anthropic": "claude-sonnet-5-5",
    "openai": "gpt-6.1-terra",
    "openai-chat": "gpt-6.1-terra",
    "google": "gemini-3.8-flash",
    "scripted": "script",
}
"""For each kind the model that is taken when the operator names none; a kind that is missing here has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A service that answers as a model. Never leaves this process: `key` would go with it."""

    name: str
    """What comes before the colon in the name of its models."""
    kind: EndpointKind
    base_url: str | None = None
    """None: the provider's own address."""
    key: str | None = field(default=None, repr=False)
    needs: str = ""
    """What is missing before it can be used, such as the name of a variable; empty when it is ready."""
    models: tuple[str, ...] = ()
    """The only models that may be asked for; empty: whatever the provider knows."""
    script: Path | None = None
    """What a scripted one plays; None: it only says that it has nothing to do."""

    @property
    def usual(self) -> str | None:
        """The model for whoever names none."""
        if self.models:
            return self.models[0]
        # What speaks like OpenAI has models of its own.
        known = self.name == self.kind or self.kind not in {"openai", "openai-chat"}
        return USUAL_MODELS.get(self.kind) if known else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """All that the operator has said about models."""

    endpoints: tuple[Endpoint, ...] = ()
    aliases: dict[str, str] = field(default_factory=dict)
    default: str | None = None
    """A name or an alias; None: the usual model of the first endpoint that is ready."""
