"""The scripted model server speaks four dialects, streams or not, and fails as it is told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from overnight.testing.model_server import ModelServer, parse_script
from overnight.testing.pytest_plugin import StartModel

Tools = dict[str, Any]


def responses(
    url: str, history: list[tuple[str, str]], *, stream: bool, tools: bool = True
) -> tuple[str, Tools]:
    items: list[Tools] = []
    for who, text in history:
        if who == "result":
            items.append({"type": "function_call_output", "call_id": "c", "output": text})
        elif who == "call":
            items.append({"type": "function_call", "call_id": "c", "name": "exec_command", "arguments": "{}"})
        else:
            items.append({"type": "message", "role": who, "content": [{"type": "input_text", "text": text}]})
    offered = [{"type": "function", "name": "exec_command"}] if tools else []
    return f"{url}/v1/responses", {"model": "m", "input": items, "tools": offered, "stream": stream}


def chat(url: str, history: list[tuple[str, str]], *, stream: bool, tools: bool = True) -> tuple[str, Tools]:
    roles = {"result": "tool", "call": "assistant"}
    messages = [{"role": roles.get(who, who), "content": text} for who, text in history]
    offered = [{"type": "function", "function": {"name": "bash"}}] if tools else []
    return f"{url}/v1/chat/completions", {
        "model": "m",
        "messages": messages,
        "tools": offered,
        "stream": stream,
    }


def anthropic(
    url: str, history: list[tuple[str, str]], *, stream: bool, tools: bool = True
) -> tuple[str, Tools]:
    messages: list[Tools] = []
    for who, text in history:
        if who == "result":
            block = {"type": "tool_result", "tool_use_id": "t", "content": text}
            messages.append({"role": "user", "content": [block, {"type": "text", "text": "a reminder"}]})
        else:
            messages.append({"role": "user" if who == "user" else "assistant", "content": text})
    offered = [{"name": "Bash"}] if tools else []
    return f"{url}/v1/messages", {"model": "m", "messages": messages, "tools": offered, "stream": stream}


def gemini(
    url: str, history: list[tuple[str, str]], *, stream: bool, tools: bool = True
) -> tuple[str, Tools]:
    contents: list[Tools] = []
    for who, text in history:
        if who == "result":
            part = {"functionResponse": {"name": "run_shell_command", "response": {"output": text}}}
            contents.append({"role": "user", "parts": [part]})
        else:
            contents.append({"role": "user" if who == "user" else "model", "parts": [{"text": text}]})
    method = "streamGenerateContent?alt=sse" if stream else "generateContent"
    offered = [{"functionDeclarations": [{"name": "run_shell_command"}]}] if tools else []
    return f"{url}/v1beta/models/gemini-2.5-pro:{method}", {"contents": contents, "tools": offered}


Dialect = Callable[..., tuple[str, Tools]]
DIALECTS: list[Dialect] = [responses, chat, anthropic, gemini]
WORDS = {responses: "exec_command", chat: "bash", anthropic: "Bash", gemini: "run_shell_command"}
SCRIPT = [
    {"reasoning": "thinking", "text": "I will look.", "tool": "shell", "arguments": {"command": "ls -l"}},
    {"text": "That is all there is to see here."},
]


def ask(
    dialect: Dialect, url: str, history: list[tuple[str, str]], *, stream: bool, tools: bool = True
) -> str:
    target, body = dialect(url, history, stream=stream, tools=tools)
    answer = httpx2.post(target, json=body, timeout=30, verify=False)
    assert answer.status_code == 200, answer.text
    return answer.text


def heard(text: str) -> str:
    """Everything said in a stream or body, deltas joined, so that words can be looked for."""
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, part in value.items():
                if key in {"delta", "text", "content", "thinking", "reasoning_content"} and isinstance(
                    part, str
                ):
                    found.append(part)
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    for line in text.splitlines():
        data = line.removeprefix("data: ")
        if data.startswith("{"):
            walk(json.loads(data))
    return "".join(found)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.__name__)
def test_a_move_becomes_text_and_a_call_in_every_dialect(
    dialect: Dialect, stream: bool, start_model: StartModel
) -> None:
    server = start_model(SCRIPT)
    first = ask(dialect, server.url, [("user", "go")], stream=stream)
    assert "I will look." in heard(first)
    assert "thinking" in heard(first)
    assert WORDS[dialect] in first
    assert "ls -l" in first
    second = ask(dialect, server.url, [("user", "go"), ("call", ""), ("result", "total 0")], stream=stream)
    assert "That is all there is to see here." in heard(second)
    assert [request.conversation.results for request in server.requests] == [0, 1]
    assert "total 0" in server.requests[1].conversation.last_results[0]


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.__name__)
def test_every_call_costs_the_same_tokens(dialect: Dialect, start_model: StartModel) -> None:
    url = start_model(SCRIPT).url
    for stream in (False, True):
        text = ask(dialect, url, [("user", "go")], stream=stream)
        assert any(number in text for number in ("1000", "800")), "the input"
        assert "200" in text
        assert any(number in text for number in ("50", "40")), "the output"


def test_the_move_depends_on_the_results_and_not_on_who_asks_when(start_model: StartModel) -> None:
    url = start_model([{"text": "one"}, {"text": "two"}, {"text": "three"}]).url
    histories = [[("user", "go")] + [("call", ""), ("result", "ok")] * n for n in (2, 0, 1, 2, 0, 3)]
    answers = [heard(ask(responses, url, history, stream=True)) for history in histories]
    assert [answer.split("three")[-1] for answer in answers[:1]] != answers[:1]
    for answer, word in zip(answers, ("three", "one", "two", "three", "one", "nothing left"), strict=True):
        assert word in answer


def test_turns_are_counted_by_the_user_messages_of_the_conversation(start_model: StartModel) -> None:
    script = {
        "turns": [
            [{"text": "first"}],
            [{"text": "turn $TURN"}],
            {"match": "magic", "moves": [{"text": "matched"}]},
        ]
    }
    url = start_model(script).url
    once = [("user", "context"), ("user", "do it")]
    twice = [*once, ("assistant", "first"), ("user", "again")]
    thrice = [*twice, ("assistant", "x"), ("user", "more")]
    assert "first" in heard(ask(responses, url, once, stream=False))
    assert "turn 2" in heard(ask(responses, url, twice, stream=False))
    assert "turn 3" in heard(ask(responses, url, thrice, stream=False)), (
        "past the last turn the last one repeats"
    )
    assert "matched" in heard(ask(responses, url, [("user", "some magic word")], stream=False))


def test_by_the_counter_it_fails_first_and_recovers(start_model: StartModel) -> None:
    server = start_model(
        {"by": "counter", "moves": [{"fault": "500"}, {"fault": "429", "retry_after_s": 1}, {"text": "ok"}]}
    )
    target, body = responses(server.url, [("user", "go")], stream=True)
    answers = [httpx2.post(target, json=body, timeout=30, verify=False) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 429, 200]
    assert answers[1].headers["retry-after"] == "1"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.__name__)
@pytest.mark.parametrize("fault", ["400", "401", "429", "500"])
def test_status_faults_have_a_body_of_the_dialect(
    fault: str, dialect: Dialect, start_model: StartModel
) -> None:
    target, body = dialect(
        start_model([{"fault": fault, "message": "no way"}]).url, [("user", "go")], stream=True
    )
    answer = httpx2.post(target, json=body, timeout=30, verify=False)
    assert answer.status_code == int(fault)
    assert answer.json()["error"]["message"] == "no way"


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda d: d.__name__)
def test_a_cut_stream_and_bad_json_are_really_broken(dialect: Dialect, start_model: StartModel) -> None:
    server = start_model([{"text": "some words to cut", "fault": "disconnect"}])
    target, body = dialect(server.url, [("user", "go")], stream=True)
    with pytest.raises(httpx2.HTTPError):
        httpx2.post(target, json=body, timeout=30, verify=False)
    server.play([{"text": "some words to spoil", "fault": "invalid_json"}])
    lines = httpx2.post(target, json=body, timeout=30, verify=False).text.splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: {")]
    with pytest.raises(json.JSONDecodeError):
        [json.loads(piece) for piece in data]


def test_a_hang_says_nothing_more_and_ends_with_the_server() -> None:
    with ModelServer([{"text": "some words", "fault": "hang"}]) as server:
        target, body = responses(server.url, [("user", "go")], stream=True)
        with pytest.raises(httpx2.ReadTimeout):
            httpx2.post(target, json=body, timeout=0.3, verify=False)


def test_a_slow_stream_takes_its_time(start_model: StartModel) -> None:
    url = start_model([{"text": "slowly", "delay_s": 0.02}]).url
    began = time.monotonic()
    assert "slowly" in heard(ask(responses, url, [("user", "go")], stream=True))
    assert time.monotonic() - began >= 0.08, "a pause before each of at least four pieces"


def test_a_client_that_needs_a_finishing_tool_gets_its_call(start_model: StartModel) -> None:
    url = start_model([{"text": "All done.", "finish": True}]).url
    target, body = chat(url, [("user", "go")], stream=False)
    body["tools"].append({"type": "function", "function": {"name": "complete"}})
    message = httpx2.post(target, json=body, timeout=30, verify=False).json()["choices"][0]["message"]
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["complete"]


def test_requests_without_tools_use_up_no_move(start_model: StartModel) -> None:
    server = start_model({"by": "counter", "moves": [{"text": "the move"}]})
    assert "title" in ask(chat, server.url, [("user", "name this")], stream=False, tools=False)
    assert "the move" in ask(chat, server.url, [("user", "go")], stream=False)
    assert [request.move is None for request in server.requests] == [True, False]


def test_keys_are_checked_where_they_are_given(start_model: StartModel) -> None:
    url = start_model(SCRIPT, keys=["good"]).url
    codes = [
        httpx2.get(f"{url}/v1/models", headers=headers, verify=False).status_code
        for headers in (
            {},
            {"Authorization": "Bearer bad"},
            {"Authorization": "Bearer good"},
            {"x-api-key": "good"},
        )
    ]
    assert codes == [401, 401, 200, 200]


def test_head_is_answered(start_model: StartModel) -> None:
    server = start_model(SCRIPT)
    assert httpx2.head(server.url, verify=False).status_code == 200
    assert server.probes == ["HEAD /"]


def test_as_a_process_it_prints_its_url(tmp_path: Path) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps(SCRIPT))
    argv = [sys.executable, "-m", "overnight.testing.model_server", "--script", str(script)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            assert "I will look." in heard(ask(responses, url, [("user", "go")], stream=True))
            assert httpx2.get(f"{url}/overnight/requests").json()[0]["turn"] == 1
        finally:
            process.terminate()


@pytest.mark.parametrize(
    "script",
    [
        '{"moves": [{"txt": "a"}]}',
        '[{"fault": "418"}]',
        '{"by": "chance", "moves": []}',
        '"words"',
        '{"what": 1}',
    ],
)
def test_a_script_that_cannot_be_meant_is_refused(script: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse_script(script)
