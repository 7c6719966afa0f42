"""What is written and chosen in an editor, and the errors it is sent."""

from __future__ import annotations

from typing import Any

import acp
import pytest
from acp.schema import BlobResourceContents, EmbeddedResourceContentBlock

from overnight.client.editor import choices
from overnight.client.editor.course import Trouble
from overnight.client.editor.refusals import failure, refusal, refusing
from overnight.client.editor.words import message_of
from overnight.errors import (
    AboveCeiling,
    InvalidInput,
    NotFound,
    OvernightError,
    PolicyUnsupported,
    Unauthorized,
    Unreachable,
)


def embedded(uri: str, text: str) -> EmbeddedResourceContentBlock:
    return acp.resource_block(acp.embedded_text_resource(uri, text))


def test_a_prompt_is_one_text_with_its_files_named_in_it() -> None:
    blocks: list[Any] = [
        acp.text_block("Look at "),
        acp.resource_link_block("a b.py", "file:///repo/src/a%20b.py"),
        acp.text_block(" and "),
        acp.resource_link_block("the issue", "https://example.org/7"),
        acp.text_block("."),
    ]
    assert message_of(blocks, "/repo") == "Look at `src/a b.py` and [the issue](https://example.org/7)."


def test_what_comes_with_a_prompt_stands_behind_it_in_a_fence_that_it_cannot_leave() -> None:
    text = "one\n```\ninside\n```\n"
    found = message_of([acp.text_block("See "), embedded("file:///repo/a.md", text)], "/repo")
    assert found == "See `a.md`\n\n`a.md`:\n````\none\n```\ninside\n```\n````"
    outside = message_of(
        [acp.text_block("See "), embedded("/other/b", "x"), embedded("note:1", "y")], "/repo"
    )
    assert outside == "See `/other/b`[note:1](note:1)\n\n`/other/b`:\n```\nx\n```\n\n`note:1`:\n```\ny\n```"


@pytest.mark.parametrize(
    "block",
    [
        acp.image_block("aGk=", "image/png"),
        acp.audio_block("aGk=", "audio/wav"),
        acp.resource_block(BlobResourceContents(uri="file:///repo/a.bin", blob="aGk=")),
    ],
)
def test_what_no_agent_is_given_is_refused(block: Any) -> None:
    with pytest.raises(InvalidInput):
        message_of([acp.text_block("look"), block], "/repo")


@pytest.mark.parametrize("blocks", [[], [acp.text_block("")], [acp.text_block(" \n"), acp.text_block("\t")]])
def test_a_prompt_says_something(blocks: list[Any]) -> None:
    with pytest.raises(InvalidInput):
        message_of(blocks, "/repo")


def test_a_policy_that_was_set_elsewhere_is_shown_too() -> None:
    shown = choices.modes({"approval_policy": "plan_review"})
    assert shown.current_mode_id == "plan_review"
    assert len(shown.available_modes) == len(choices.POLICIES) + 1
    assert choices.modes({}).current_mode_id == "autonomous"
    assert len(choices.modes({}).available_modes) == len(choices.POLICIES)


def test_settings_of_the_editor_are_fields_of_a_run() -> None:
    config = {"workspace": "/repo", "model": "big"}
    assert choices.changed(config, "mode", "ask_all") == {**config, "approval_policy": "ask_all"}
    assert choices.changed(config, "model", "default") == {"workspace": "/repo"}
    assert choices.changed(config, "effort", "high") == {**config, "effort": "high"}
    for option, value in (("goal", "x"), ("mode", True)):
        with pytest.raises(InvalidInput):
            choices.changed(config, option, value)
    shown = {option.id: option for option in choices.options(config, ["echo", "demo"])}
    assert set(shown) == {"mode", "backend", "model", "effort", "sandbox"}
    assert shown["model"].current_value == "big"
    assert "backend" not in {option.id for option in choices.options({"backend": "echo"}, [])}


@pytest.mark.parametrize(
    "error,number",
    [
        (InvalidInput("no"), -32602),
        (PolicyUnsupported("no"), -32602),
        (NotFound("no"), -32002),
        (Unauthorized("no"), -32000),
        (AboveCeiling("no"), -32603),
        (Unreachable("no"), -32603),
    ],
)
def test_errors_keep_their_codes(error: OvernightError, number: int) -> None:
    sent = refusal(error)
    assert (sent.code, str(sent)) == (number, "no")
    assert sent.data == {"code": error.code, "detail": "no"}


def test_an_error_says_how_to_mend_it() -> None:
    sent = refusal(NotFound("gone", mend="look elsewhere"))
    assert str(sent) == "gone (look elsewhere)"
    run = failure(Trouble(code="rate_limited", message="later", retryable=True), "run_1")
    assert run.data == {"code": "rate_limited", "retryable": True, "run_id": "run_1"}


@pytest.mark.anyio
async def test_a_method_refuses_in_the_protocols_words() -> None:
    @refusing
    async def method() -> None:
        raise NotFound("gone")

    with pytest.raises(acp.RequestError) as caught:
        await method()
    assert caught.value.code == -32002
