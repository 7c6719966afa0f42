"""The real ACP programs, configured for a scripted model server."""

from __future__ import annotations

import json
from pathlib import Path

from tests.backends.acp_stage import HOST

from overnight.backends.acp.catalogue import Name, acp_program
from overnight.backends.acp.program import AcpProgram
from overnight.backends.process.settings import ProgramSettings
from overnight.clock import SystemClock


def real_program(name: Name, path: Path, url: str) -> AcpProgram:
    """The program, configured for that."""
    environment, args, model = made_for(name, url)
    settings = ProgramSettings(
        name=name, program=path, args=args, environment=environment, model=model, host=HOST
    )
    return acp_program(name, settings, SystemClock())


Made = tuple[dict[str, str], tuple[str, ...], str | None]
"""Environment, arguments and model."""


def made_for(name: Name, url: str) -> Made:
    """What makes the program talk to the model server at `url`."""
    return _MAKERS[name](url)


def _gemini(url: str) -> Made:
    return {"GEMINI_API_KEY": "key", "GOOGLE_GEMINI_BASE_URL": url}, (), "gemini-2.5-pro"


def _qwen(url: str) -> Made:
    return {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{url}/v1"}, (), "mock-model"


def _claude(url: str) -> Made:
    return {"ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "key", "CLAUDE_CODE_MAX_RETRIES": "1"}, (), None


def _codex(url: str) -> Made:
    provider = (
        f'model_providers.mock={{name="mock", base_url="{url}/v1", env_key="MOCK_KEY", wire_api="responses", '
        "request_max_retries=1, stream_max_retries=1}"
    )
    return {"MOCK_KEY": "key"}, ("-c", "model_provider=mock", "-c", provider), "mock-model"


def _copilot(url: str) -> Made:
    return {
        "COPILOT_OFFLINE": "true", "COPILOT_PROVIDER_BASE_URL": f"{url}/v1", "COPILOT_PROVIDER_TYPE": "openai",
        "COPILOT_PROVIDER_API_KEY": "key",
    }, (), "mock-model"  # fmt: skip


def _opencode(url: str) -> Made:
    model = {
        "name": "mock",
        "reasoning": True,
        "tool_call": True,
        "limit": {"context": 100000, "output": 8000},
    }
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "mock",
        "options": {"baseURL": f"{url}/v1", "apiKey": "key"},
        "models": {"mock-model": model},
    }
    content = {"small_model": "mock/mock-model", "provider": {"mock": provider}}
    return {"OPENCODE_CONFIG_CONTENT": json.dumps(content)}, (), "mock/mock-model"


_MAKERS = {
    "gemini": _gemini,
    "qwen": _qwen,
    "claude-acp": _claude,
    "codex-acp": _codex,
    "copilot": _copilot,
    "opencode": _opencode,
}
