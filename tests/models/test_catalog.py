"""Which model a name means, and what is listed."""

import pytest
from tests.models.asking import ask, request

from overnight.errors import AuthRequired, ModelNotFound
from overnight.models.catalog import Catalog
from overnight.models.configured import ConfiguredModels
from overnight.models.endpoint import Endpoint, ModelSettings
from overnight.ports.model import ModelFilter

LOCAL = Endpoint(name="local", kind="openai-chat", base_url="http://127.0.0.1:1/v1", models=("qwen", "llama"))
OPENAI = Endpoint(name="openai", kind="openai", needs="OPENAI_API_KEY")
ANTHROPIC = Endpoint(name="anthropic", kind="anthropic", key="k")
ALL = ModelSettings(
    endpoints=(OPENAI, LOCAL, ANTHROPIC), aliases={"near": "local:llama", "far": "anthropic:claude-x"}
)


@pytest.mark.parametrize(
    "name, full",
    [("local:qwen", "local:qwen"), ("near", "local:llama"), ("anthropic:brand-new", "anthropic:brand-new"),
     ("openai:ft:gpt:me", "openai:ft:gpt:me"), ("", "local:qwen")],
)  # fmt: skip
def test_a_name_means_a_model(name: str, full: str) -> None:
    assert Catalog(ALL).find(name).name == full


@pytest.mark.parametrize("name", ["qwen", "nobody:x", "local:other", "local:", ":", "near:x", "local"])
def test_what_is_no_model_says_what_there_is(name: str) -> None:
    with pytest.raises(ModelNotFound) as refused:
        Catalog(ALL).find(name)
    assert refused.value.mend


def test_the_operators_default_goes_before_whatever_is_ready() -> None:
    settings = ModelSettings(endpoints=ALL.endpoints, aliases=ALL.aliases, default="far")
    assert Catalog(settings).find("").name == "anthropic:claude-x"
    with pytest.raises(ModelNotFound, match="no model is configured"):
        Catalog(ModelSettings(endpoints=(OPENAI,))).find("")


@pytest.mark.anyio
async def test_the_list_begins_with_the_default_and_names_each_once() -> None:
    found = await ConfiguredModels(ALL).list(ModelFilter())
    names = [model.name for model in found]
    assert names[:3] == ["local:qwen", "local:llama", "anthropic:claude-x"]
    assert len(set(names)) == len(names)
    by_name = {model.name: model for model in found}
    assert by_name["local:qwen"].default
    assert by_name["local:llama"].aliases == ("near",)
    (unready,) = (model for model in found if not model.ready)
    assert (unready.provider, unready.needs) == ("openai", "OPENAI_API_KEY")
    known = by_name["anthropic:claude-sonnet-4-6"]
    assert known.context_window == 1_000_000


@pytest.mark.anyio
async def test_a_list_can_be_narrowed() -> None:
    models = ConfiguredModels(ALL)
    assert [model.id for model in await models.list(ModelFilter(provider="local"))] == ["qwen", "llama"]
    assert [model.name for model in await models.list(ModelFilter(model="near"))] == ["local:llama"]
    assert [model.name for model in await models.list(ModelFilter(model="anthropic:brand-new"))] == [
        "anthropic:brand-new"
    ]
    assert await models.list(ModelFilter(model="nobody:x")) == ()
    assert await models.list(ModelFilter(provider="openai", include_unready=False)) == ()


@pytest.mark.anyio
async def test_who_has_no_key_is_told_its_name() -> None:
    with pytest.raises(AuthRequired) as refused:
        await ask(ConfiguredModels(ALL), request("openai"))
    assert "OPENAI_API_KEY" in refused.value.mend


def test_a_key_is_not_shown() -> None:
    assert "very-secret" not in repr(Endpoint(name="x", kind="anthropic", key="very-secret"))
