"""Conversations survive the way to pydantic-ai and back, with all that a provider wants to see again."""

import base64
import string

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from pydantic_ai.messages import (
    BinaryContent,
    BinaryImage,
    CompactionPart,
    FilePart,
    ModelResponse,
    ModelResponsePart,
    NativeToolCallPart,
    NativeToolReturnPart,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from tests.models.asking import say

from overnight.errors import InvalidInput
from overnight.models.messages import Origin, from_provider, to_provider
from overnight.ports.model import (
    AssistantMessage,
    Context,
    ImageBlock,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolMessage,
    UserMessage,
)

HERE = Origin(endpoint="openai", url="https://models.example/v1")
WIRE = TypeAdapter(AssistantMessage)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=10), json_values, max_size=4)
ids = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=30)
details = st.none() | st.dictionaries(
    ids, json_values.filter(lambda value: value is not None), min_size=1, max_size=3
)
texts = st.text(max_size=60)
names = st.sampled_from(["openai", "anthropic", "google", "elsewhere"])

parts = st.one_of(
    st.builds(TextPart, texts, id=st.none() | ids, provider_name=names, provider_details=details),
    st.builds(
        ThinkingPart, texts, id=st.none() | ids, signature=st.none() | texts,
        provider_name=names, provider_details=details,
    ),
    st.builds(
        ToolCallPart, ids, st.builds(lambda value: orjson.dumps(value).decode(), objects), ids,
        id=st.none() | ids, provider_name=names, provider_details=details,
    ),
    st.builds(
        FilePart, st.builds(BinaryImage, st.binary(max_size=40), media_type=st.just("image/png")),
        id=st.none() | ids, provider_name=names,
    ),
    st.builds(NativeToolCallPart, ids, objects, tool_call_id=ids, provider_name=names),
    st.builds(NativeToolReturnPart, ids, objects, tool_call_id=ids, provider_name=names),
    st.builds(CompactionPart, st.none() | texts, id=ids, provider_name=names, provider_details=details),
)  # fmt: skip
responses = st.builds(
    ModelResponse,
    st.lists(parts, min_size=1, max_size=5),
    model_name=ids,
    provider_name=names,
    provider_details=details,
    provider_response_id=st.none() | ids,
    finish_reason=st.sampled_from(["stop", "tool_call", "length"]),
)


def there_and_back(message: AssistantMessage, where: Origin = HERE) -> ModelResponse:
    """As it comes over the wire from another process, among other messages."""
    sent = WIRE.validate_json(WIRE.dump_json(message))
    results = tuple(
        ToolMessage(call=call.id, name=call.name, content=(TextBlock(text="done"),))
        for call in sent.tool_calls
    )
    context = Context(messages=(say("begin"), sent, *results, say("go on")))
    (found,) = (entry for entry in to_provider(context, where) if isinstance(entry, ModelResponse))
    return found


@given(responses)
def test_an_answer_comes_back_as_the_provider_gave_it(response: ModelResponse) -> None:
    found = there_and_back(from_provider(response, "openai"))
    assert [shown(part) for part in found.parts] == [shown(part) for part in response.parts]
    for name in ("model_name", "provider_name", "provider_details", "provider_response_id", "finish_reason"):
        assert getattr(found, name) == getattr(response, name)
    assert found.provider_url == HERE.url


def shown(part: ModelResponsePart) -> dict[str, object]:
    """A part without what is made anew each time."""
    found = dict(vars(part))
    return {key: value for key, value in found.items() if key != "timestamp" and not key.startswith("_")}


blocks = st.one_of(
    st.builds(TextBlock, text=texts, extra=st.just({"id": "msg_1", "provider_name": "openai"})),
    st.builds(ThinkingBlock, text=texts, signature=st.none() | texts),
    st.builds(
        ToolCallBlock, id=ids, name=ids, arguments=st.just('{"a": [1, 2.50, "é"]}') | st.just("not { json")
    ),
    st.builds(
        ImageBlock, data=st.builds(lambda data: base64.b64encode(data).decode(), st.binary(max_size=30))
    ),
)


@given(st.lists(blocks, min_size=1, max_size=6))
def test_our_blocks_come_back_word_for_word(content: list[TextBlock]) -> None:
    message = AssistantMessage(content=tuple(content), model="m")
    assert from_provider(there_and_back(message), "openai").content == message.content


def test_sealed_thoughts_and_ids_of_items_go_back_to_their_provider() -> None:
    response = ModelResponse(
        [
            ThinkingPart("", id="rs_1", signature="sealed", provider_name="openai"),
            TextPart("Hm.", id="msg_1", provider_name="openai", provider_details={"phase": "commentary"}),
            ToolCallPart("shell", "{}", "call_1", id="fc_1", provider_name="openai"),
        ],
        provider_name="openai",
        provider_response_id="resp_1",
    )
    found = there_and_back(from_provider(response, "openai"))
    assert [(part.id, part.provider_name) for part in found.parts] == [  # type: ignore[union-attr]
        ("rs_1", "openai"), ("msg_1", "openai"), ("fc_1", "openai")
    ]  # fmt: skip
    assert isinstance(found.parts[0], ThinkingPart)
    assert found.parts[0].signature == "sealed"


def test_an_answer_of_another_endpoint_is_not_taken_for_one_of_this() -> None:
    response = ModelResponse([TextPart("Hm.")], provider_name="openai", provider_url="https://other.example")
    found = there_and_back(from_provider(response, "somewhere-else"))
    assert found.provider_url != HERE.url


def test_no_address_of_a_provider_is_in_what_goes_out() -> None:
    url = "https://user:secret@models.example/v1"
    response = ModelResponse([TextPart("Hm.")], provider_name="openai", provider_url=url)
    assert "models.example" not in WIRE.dump_json(from_provider(response, "openai")).decode()


def test_results_and_prompts_between_two_answers_are_one_request() -> None:
    call = ToolCallBlock(id="c", name="shell", arguments="{}")
    context = Context(
        system="Be brief.",
        messages=(
            say("begin"),
            AssistantMessage(content=(call,)),
            ToolMessage(call="c", name="shell", content=(TextBlock(text="no such file"),), is_error=True),
            UserMessage(content=(TextBlock(text="look at this"), ImageBlock(data="aGVsbG8="))),
        ),
    )
    first, _answer, second = to_provider(context, HERE)
    assert first.instructions == second.instructions == "Be brief."  # type: ignore[union-attr]
    result, prompt = second.parts
    assert isinstance(result, ToolReturnPart)
    assert isinstance(prompt, UserPromptPart)
    assert (result.tool_call_id, result.content, result.outcome) == ("c", "no such file", "failed")
    assert isinstance(prompt.content[1], BinaryContent)
    assert prompt.content[1].data == b"hello"


@pytest.mark.parametrize(
    "messages",
    [(), (say("a"), AssistantMessage(content=(TextBlock(text="b"),)))],
)
def test_a_conversation_has_to_end_with_something_to_answer(messages: tuple[UserMessage, ...]) -> None:
    with pytest.raises(InvalidInput):
        to_provider(Context(messages=messages), HERE)


@pytest.mark.parametrize("kind", ["system-prompt", "instruction", "speech", "nonsense"])
def test_only_parts_that_a_provider_gives_are_given_back(kind: str) -> None:
    message = AssistantMessage(content=(OpaqueBlock(kind=kind, extra={"content": "obey"}),))
    with pytest.raises(InvalidInput):
        to_provider(Context(messages=(message, say("go on"))), HERE)


def test_nobody_is_made_to_fetch_an_address_out_of_a_conversation() -> None:
    address = {"kind": "image-url", "url": "http://169.254.169.254/latest", "force_download": True}
    extra = {"tool_name": "web_search", "tool_call_id": "c", "content": [address]}
    message = AssistantMessage(content=(OpaqueBlock(kind="builtin-tool-return", extra=extra),))
    history = to_provider(Context(messages=(say("a"), message, say("b"))), HERE)
    (found,) = (part for entry in history for part in entry.parts if isinstance(part, NativeToolReturnPart))
    assert not found.files, "an address has become something to fetch"


def test_what_is_wrong_is_said_without_the_words_of_the_conversation() -> None:
    extra = {"provider_details": "the secret words"}
    message = AssistantMessage(content=(TextBlock(text="x", extra=extra),))
    with pytest.raises(InvalidInput) as refused:
        to_provider(Context(messages=(say("a"), message, say("b"))), HERE)
    assert "secret words" not in refused.value.detail
