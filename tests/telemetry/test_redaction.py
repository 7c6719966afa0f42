"""Secrets never come out, whole or cut, plain or encoded."""

from __future__ import annotations

import base64
import itertools
import json
import time
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overnight.domain.redaction import MARK, PEM_LIMIT, Redactor

SECRET = "hunter2/secret+välue & more"
PLAIN = Redactor()
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "\n".join(["MIIBOgIBAAJBAKj34Gkx" * 3] * 5)
    + "\n-----END RSA PRIVATE KEY-----"
)
SHAPES = [
    "sk-abcdefghijklmnopqrstuvwxyz0123",
    "sk-proj-Ab_cdefghijklmnopqrst",
    "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "github_pat_11ABCDEFG0abcdefghij_KLMNOP",
    "AKIAIOSFODNN7EXAMPLE",
    "xoxb-123456789012-abcdefghij",
    "ovn_" + "a1B2" * 10,
    "ova_run_" + "01hq" * 6 + "ab.1.2." + "0f" * 32,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
    KEY,
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("frame", ["{}", "key: {} end", '"{}"', "x={}\n", "({})"])
def test_shapes_that_only_secrets_have(shape: str, frame: str) -> None:
    assert PLAIN.text(frame.format(shape)) == frame.format(MARK)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {MARK}"),
        ("authorization: bearer\tabcdefgh", f"authorization: bearer\t{MARK}"),
        ("Basic dXNlcjpwYXNzd29yZA==", f"Basic {MARK}"),
        ("https://user:pa55@host/x", f"https://user:{MARK}@host/x"),
        ("postgres://:pw@db", f"postgres://:{MARK}@db"),
        ("https://h/x?a=1&api_key=abcdef&b=2", f"https://h/x?a=1&api_key={MARK}&b=2"),
        ("PASSWORD=letmein next", f"PASSWORD={MARK} next"),
    ],
)  # fmt: skip
def test_only_the_secret_part_goes(text: str, shown: str) -> None:
    assert PLAIN.text(text) == shown
    assert PLAIN.text(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["task-runner-with-a-long-name-indeed", "the bearer of news", "risk-management-framework-two", "http://host:8080/x",
     "eyJust a word", "a ghp_short one", "basic training", "mask-0123456789abcdefgh", "12:30:45 http://a/b:c", "{}"],
)  # fmt: skip
def test_ordinary_words_stay(text: str) -> None:
    assert PLAIN.text(text) is text


def _forms(secret: str) -> list[str]:
    raw = secret.encode()
    return [
        secret, urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret), json.dumps(secret),
        json.dumps(secret, ensure_ascii=False), base64.b64encode(raw).decode(), base64.b64encode(b"u:" + raw).decode(),
        base64.b64encode(b"us:" + raw + b"!").decode(), base64.urlsafe_b64encode(b"x" + raw).decode(), raw.hex(),
    ]  # fmt: skip


@pytest.mark.parametrize("form", _forms(SECRET))
def test_a_known_value_in_every_form(form: str) -> None:
    shown = Redactor([SECRET]).text(f"<<{form}>>")
    assert MARK in shown
    core = form.strip('"')[6:-6]
    assert core not in shown


def test_each_line_of_a_value_is_a_secret_and_short_ones_are_not() -> None:
    redactor = Redactor(["first-line\nsecond-line\n", "abc", "", "   "])
    assert redactor.text("x second-line y abc") == f"x {MARK} y abc"


def test_json_is_redacted_in_keys_values_and_depths_and_left_alone_otherwise() -> None:
    redactor = Redactor(["topsecret"])
    document = {"topsecret": [{"a": "x topsecret"}, 1, None, True, 2.5], "b": ("topsecret",)}
    assert redactor.json(document) == {MARK: [{"a": f"x {MARK}"}, 1, None, True, 2.5], "b": [MARK]}


words = st.text(st.sampled_from("ab -\n:é=secrt12/"), max_size=12)
secrets = st.sampled_from([SECRET, *SHAPES, *_forms(SECRET), "Bearer abcdefghijkl", "two words"])


@given(st.lists(st.one_of(words, secrets), max_size=6), st.lists(st.integers(0, 400), max_size=12))
def test_a_stream_shows_no_secret_wherever_it_is_cut(parts: list[str], cuts: list[int]) -> None:
    """Each text is bounded by spaces, so that pieces do not join into words of their own."""
    redactor = Redactor([SECRET, "two words"])
    text = " | ".join(parts) + " "
    stream = redactor.stream()
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = "".join(stream.feed(text[a:b]) for a, b in itertools.pairwise(borders)) + stream.finish()
    assert shown == redactor.text(text)


@given(st.integers(1, 30))
def test_a_key_in_pieces_is_swallowed_at_once_and_what_follows_is_shown(size: int) -> None:
    stream = PLAIN.stream()
    text = f"before {KEY} after\nend\n"
    shown = "".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size)) + stream.finish()
    assert shown == f"before {MARK} after\nend\n"


def test_a_key_without_an_end_hides_a_bounded_amount() -> None:
    stream = PLAIN.stream()
    shown = stream.feed("-----BEGIN PRIVATE KEY-----\n")
    shown += "".join(stream.feed(f"hidden? line {n}\n") for n in range(3000)) + stream.finish()
    assert f"line {2999}\n" in shown
    assert len(shown) > 3000 * 15 - PEM_LIMIT - 100


def test_half_a_secret_before_a_gap_is_dropped() -> None:
    stream = Redactor(["topsecretvalue"]).stream()
    assert stream.feed("hello topsec") == "hello "
    assert stream.skip() == 6
    assert stream.feed("next line\n") == "next line\n"


def test_an_ordinary_line_is_never_held_back() -> None:
    stream = Redactor(["topsecret"]).stream()
    assert stream.feed("this ends like tops\n") == "this ends like tops\n"
    assert stream.feed("tops") == ""
    assert stream.feed("oil\n") == "topsoil\n"


@pytest.mark.parametrize(
    "unit", ["-----BEGIN PRIVATE KEY-----\n", "eyJaaaaaaaa-", "?a_password", "://a:", "bearer ", "sk-"]
)
def test_hostile_text_costs_linear_time(unit: str) -> None:
    """A megabyte of half matches; quadratic work would take minutes."""
    text = "sk-abcdefghijklmnopqrstuvwxyz " + unit * (1_000_000 // len(unit))
    start = time.process_time()
    PLAIN.text(text)
    assert time.process_time() - start < 8
