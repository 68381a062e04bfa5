"""``colbert mcp`` as the tools of real agents: LangGraph's through langchain-mcp-adapters, LlamaIndex's through its McpToolSpec."""

from __future__ import annotations

import gc
import warnings

import pytest
from builders.agents import command, listening, write_pets
from builders.processes import environment
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_mcp_adapters.client import MultiServerMCPClient
from llama_index.tools.mcp import BasicMCPClient, McpToolSpec


@pytest.fixture(scope="module", autouse=True)
def _what_the_frameworks_leave_open():
    """LlamaIndex's client leaves its connection to Python, which would warn of it in a test to come."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, default_encoder):
    return write_pets(tmp_path_factory.mktemp("served") / "pets.idx", default_encoder)


class Scripted(GenericFakeChatModel):
    """A chat model that says what it is told to, whatever tools it is given."""

    def bind_tools(self, tools, **_):
        assert {"search", "get_passage", "explain", "list_collections"} <= {tool.name for tool in tools}
        return self


def calls(name, **arguments):
    return AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": f"call of {name}", "type": "tool_call"}])


async def test_an_agent_of_langgraph_uses_the_tools_and_goes_on_after_an_error(folder):
    python, *arguments = command(folder)
    connection = {"transport": "stdio", "command": python, "args": arguments, "env": environment(HF_HUB_OFFLINE="1")}
    tools = await MultiServerMCPClient({"pets": connection}).get_tools()
    script = [
        calls("search", query="happy cats", where={"yeer": {"$gt": "x", "$foo": 1}}),
        calls("search", query="which animal escaped at night?", k=1),
        calls("get_passage", id="long", offset=0, max_tokens=300),
        AIMessage("A zebra (long)."),
    ]
    agent = create_agent(Scripted(messages=iter(script)), tools)
    state = await agent.ainvoke({"messages": [("user", "What happened at the zoo?")]})
    wrong, found, read = [message for message in state["messages"] if isinstance(message, ToolMessage)]
    assert wrong.status == "error"
    assert "'$foo' is no operator" in wrong.text
    assert "The zebra escaped from the zoo" in found.text
    assert found.artifact["structured_content"]["hits"][0]["id"] == "long"
    assert "call get_passage with offset=" in read.text
    assert state["messages"][-1].text == "A zebra (long)."


async def test_llama_index_calls_the_tools_over_http(folder):
    with listening(folder) as (_, address):
        tools = {tool.metadata.name: tool for tool in await McpToolSpec(BasicMCPClient(address)).to_tool_list_async()}
        assert tools.keys() == {"search", "get_passage", "explain", "list_collections"}
        found = await tools["search"].acall(query="happy cats", k=1)
        assert "Cats purr when they are content." in found.content
        listed = await tools["search"].acall(query="", where={"year": {"$gte": 2023}})
        assert "Dogs bark at strangers." in listed.content
