"""The settings of language models as data."""

from __future__ import annotations

from typing import Final

from overnight.config.setting import Setting

MODELS: Final[tuple[Setting, ...]] = (
    Setting(
        key="models.default",
        variable="OVERNIGHT_DEFAULT_MODEL",
        kind="text",
        default=None,
        description="Model of whoever names none: PROVIDER:NAME or an alias; without a value the usual one of the "
        "first provider that is ready.",
    ),
    Setting(
        key="models.aliases",
        kind="table",
        default=None,
        description='Further names for models: NAME = "PROVIDER:NAME".',
    ),
    Setting(
        key="models.providers",
        kind="table",
        default=None,
        description="One table for each provider of models: kind (openai, openai-chat, anthropic, google, "
        'github-copilot, scripted), base_url, key = { env = "VARIABLE" } or { file = "/absolute/path" }, models, '
        "script. The first five are there without one and take their keys from OPENAI_API_KEY, ANTHROPIC_API_KEY, "
        "GEMINI_API_KEY and GITHUB_COPILOT_API_KEY of the server's environment.",
    ),
)
