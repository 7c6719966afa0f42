"""Gemini CLI, and Qwen Code, which began as a copy of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from overnight.backends.acp.agent import CAPABILITIES, NODE, Agent, Credentials, Equipment, node_script
from overnight.backends.process.settings import ProgramSettings
from overnight.ports.backend import TurnStart

_QUIET: Mapping[str, object] = {
    "privacy": {"usageStatisticsEnabled": False},
    "telemetry": {"enabled": False},
}
_GEMINI_KEYS = ("GEMINI_API_KEY", "GOOGLE_API_KEY")


def gemini(node: str | None) -> Agent:
    """`gemini --acp`. It always asks: where nobody needs to be asked, the answer is ours."""
    return Agent(
        title="Gemini CLI",
        program="gemini",
        find=node_script(node),
        equip=_gemini,
        credentials=Credentials(
            keys=(*_GEMINI_KEYS, "GOOGLE_APPLICATION_CREDENTIALS"),
            passed=(
                "GOOGLE_GEMINI_BASE_URL",
                "GOOGLE_CLOUD_PROJECT",
                "GOOGLE_CLOUD_LOCATION",
                "GOOGLE_GENAI_USE_VERTEXAI",
            ),
            logins=(".gemini/oauth_creds.json",),
            probe=_ask_google,
        ),
        versions=((0, 61, 0), (0, 62, 0)),
        capabilities=replace(
            CAPABILITIES, exit_codes=False, reserved_environment=("GEMINI_*", "GOOGLE_*", *NODE)
        ),
        usage="quota",
        # It takes our answer that a file is missing for a broken disk, and then writes no new file at all.
        reads=False,
        history_ends_with="available_commands_update",
        prepare=_keep_session,
    )


def qwen(node: str | None) -> Agent:
    """`qwen --acp`."""
    return Agent(
        title="Qwen Code",
        program="qwen",
        find=node_script(node),
        equip=_qwen,
        credentials=Credentials(
            keys=("OPENAI_API_KEY",),
            passed=("OPENAI_BASE_URL", "OPENAI_MODEL"),
            logins=(".qwen/oauth_creds.json",),
            probe=_ask_openai,
        ),
        versions=((0, 15, 10), (0, 16, 0)),
        capabilities=replace(CAPABILITIES, reserved_environment=("QWEN_*", "OPENAI_*", *NODE)),
        usage="chunks",
        error_prefix="[API Error:",
    )


def _gemini(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: ARG001, FBT001  # it always asks
    model = start.model or settings.model
    vertex = settings.host.get("GOOGLE_GENAI_USE_VERTEXAI") or settings.environment.get(
        "GOOGLE_GENAI_USE_VERTEXAI"
    )
    kind = "vertex-ai" if vertex else "oauth-personal" if settings.login == "user" else "gemini-api-key"
    # A folder that is not trusted configures nothing: no servers, no hooks, no variables.
    secure = {"auth": {"selectedType": kind}, "folderTrust": {"enabled": True}}
    general = {"enableAutoUpdate": False, "enableAutoUpdateNotification": False, "maxAttempts": 3}
    return Equipment(
        args=("--acp", "--approval-mode", "default", *(("-m", model) if model else ())),
        env={"GEMINI_CLI_NO_RELAUNCH": "true"},
        files={
            ".gemini/settings.json": json.dumps({"security": secure, "general": general, **_QUIET}),
            ".gemini/trustedFolders.json": json.dumps({str(start.workspace): "DO_NOT_TRUST"}),
        },
        effort=start.effort,
        lent=((".gemini/oauth_creds.json", ".gemini/oauth_creds.json"),),
    )


def _qwen(settings: ProgramSettings, start: TurnStart, asking: bool) -> Equipment:  # noqa: ARG001, FBT001  # it always asks
    model = start.model or settings.model
    kind = "qwen-oauth" if settings.login == "user" else "openai"
    secure = {"auth": {"selectedType": kind}, "folderTrust": {"enabled": True}}
    general = {"enableAutoUpdate": False, "disableAutoUpdate": True}
    return Equipment(
        args=("--acp", "--approval-mode", "default", "--auth-type", kind, *(("-m", model) if model else ())),
        env={"QWEN_CODE_NO_RELAUNCH": "true"},
        files={
            ".qwen/settings.json": json.dumps({"security": secure, "general": general, **_QUIET}),
            ".qwen/trustedFolders.json": json.dumps({str(start.workspace): "DO_NOT_TRUST"}),
        },
        effort=start.effort,
        lent=((".qwen/oauth_creds.json", ".qwen/oauth_creds.json"),),
    )


def _keep_session(start: TurnStart) -> None:
    """Gemini names a session's file by the minute of its start, and loading one within that minute empties it first."""
    session = str(start.resume.get("session_id", ""))[:8]
    if len(session) < 8 or not session.isalnum():
        return
    for file in start.home.glob(f".gemini/tmp/*/chats/session-2*-{session}.jsonl"):
        if file.is_file() and not file.is_symlink():
            file.rename(file.with_name(f"session-1970-01-01T00-00-{session}.jsonl"))


def _ask_google(known: Mapping[str, str]) -> tuple[str, Mapping[str, str]] | None:
    key = next((known[name] for name in _GEMINI_KEYS if name in known), None)
    if key is None or known.get("GOOGLE_GENAI_USE_VERTEXAI"):
        return None
    base = known.get("GOOGLE_GEMINI_BASE_URL", "https://generativelanguage.googleapis.com")
    return f"{base.rstrip('/')}/v1beta/models", {"x-goog-api-key": key}


def _ask_openai(known: Mapping[str, str]) -> tuple[str, Mapping[str, str]] | None:
    if "OPENAI_API_KEY" not in known:
        return None
    base = known.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
    return f"{base.rstrip('/')}/models", {"Authorization": f"Bearer {known['OPENAI_API_KEY']}"}
