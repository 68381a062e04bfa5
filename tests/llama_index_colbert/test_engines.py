"""The LlamaIndex adapters in the framework's own engines, chats, fusion, evaluation and agents, with its fake models.

What counts is which text reached the model, and which events came in which order.
"""

from __future__ import annotations

import bm25s
import pytest
from llama_index.core import Settings
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import Field
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.query import QueryEndEvent, QueryStartEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.instrumentation.events.synthesis import SynthesizeEndEvent, SynthesizeStartEvent
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import NodeRelationship, NodeWithScore, RelatedNodeInfo, TextNode
from llama_index.core.tools import QueryEngineTool, RetrieverTool

from llama_index_colbert import ColBERTIndex, ColBERTRerank, ColBERTVectorStore

TEXTS = {
    "cat": "the cat sat on the mat",
    "dog": "a dog barks at night",
    "puppy": "a young dog sleeps by day",
    "bird": "a bird sings a song",
    "fish": "fish swim in the sea",
}


@pytest.fixture(autouse=True)
def fake_llm(monkeypatch):
    monkeypatch.setattr(Settings, "_llm", MockLLM())


def nodes():
    made = [TextNode(id_=name, text=text) for name, text in TEXTS.items()]
    for node in made:
        node.relationships[NodeRelationship.SOURCE] = RelatedNodeInfo(node_id=f"{node.node_id}.txt")
    return made


@pytest.fixture(params=["index", "store"])
def index(request, words):
    if request.param == "index":
        return ColBERTIndex(nodes=nodes(), model_name=words)
    store = ColBERTVectorStore(words)
    store.add(nodes())
    return store.as_index()


class Reader(MockLLM):
    """Answers with what it was asked, and remembers it."""

    prompts: list = Field(default_factory=list)

    def complete(self, prompt, formatted=False, **kwargs):
        self.prompts.append(prompt)
        return super().complete(prompt, formatted, **kwargs)


def reached(prompts):
    """Which texts were in them."""
    return [name for name, text in TEXTS.items() if any(text in str(prompt) for prompt in prompts)]


def ids(found):
    return [scored.node.node_id for scored in found]


# Query engines


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize", "accumulate"])
async def test_what_was_retrieved_reaches_the_llm_in_every_response_mode(index, mode):
    llm = Reader()
    engine = index.as_query_engine(llm=llm, similarity_top_k=2, response_mode=mode)
    response = engine.query("what does a dog do at night")
    assert ids(response.source_nodes) == ["dog", "puppy"]
    assert reached(llm.prompts) == ["dog", "puppy"]
    llm.prompts.clear()
    response = await engine.aquery("what does a dog do at night")
    assert ids(response.source_nodes) == ["dog", "puppy"]
    assert reached(llm.prompts) == ["dog", "puppy"]


@pytest.mark.parametrize("mode", ["no_text", "context_only"])
def test_without_an_answer_only_the_nodes_come_back(index, mode):
    llm = Reader()
    response = index.as_query_engine(llm=llm, similarity_top_k=1, response_mode=mode).query("dog barks")
    assert ids(response.source_nodes) == ["dog"]
    assert llm.prompts == []
    assert reached([response]) == (["dog"] if mode == "context_only" else [])


def test_an_answer_is_streamed(index):
    response = index.as_query_engine(llm=MockLLM(), similarity_top_k=1, streaming=True).query("dog barks")
    assert reached(["".join(response.response_gen)]) == ["dog"]


def test_the_reranker_decides_what_reaches_the_llm(index, words):
    llm = Reader()
    rerank = ColBERTRerank(model=words, top_n=1, score_threshold=0.9)
    index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[rerank]).query("bird sings")
    assert reached(llm.prompts) == ["bird"]
    llm.prompts.clear()
    kept = ColBERTRerank(model=words, top_n=2, keep_retrieval_score=True)
    response = index.as_query_engine(llm=llm, similarity_top_k=5, node_postprocessors=[kept]).query("bird sings")
    assert response.source_nodes[0].node.metadata["retrieval_score"] == pytest.approx(1)
    assert "retrieval_score" not in "".join(llm.prompts)


class Recorder(BaseEventHandler):
    seen: list = []

    def handle(self, event, **_):
        self.seen.append(type(event))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_events_come_in_the_frameworks_order(index, words, asynchronous):
    engine = index.as_query_engine(similarity_top_k=3, node_postprocessors=[ColBERTRerank(model=words, top_n=1)])
    recorder, root = Recorder(seen=[]), get_dispatcher()
    root.add_event_handler(recorder)
    try:
        if asynchronous:
            await engine.aquery("dog barks")
        else:
            engine.query("dog barks")
    finally:
        root.event_handlers.remove(recorder)
    expected = [
        QueryStartEvent,
        RetrievalStartEvent,
        RetrievalEndEvent,
        ReRankStartEvent,
        ReRankEndEvent,
        SynthesizeStartEvent,
        SynthesizeEndEvent,
        QueryEndEvent,
    ]
    first = list(dict.fromkeys(kind for kind in recorder.seen if kind in expected))
    assert first[:6] == expected[:6]
    assert recorder.seen[-1] is QueryEndEvent
    assert [kind for kind in recorder.seen if kind in expected[1:5]] == expected[1:5]


# Chat engines


@pytest.mark.parametrize("mode", ["context", "condense_plus_context", "condense_question", "best"])
async def test_what_was_retrieved_reaches_the_llm_in_every_chat(index, words, mode):
    llm = Reader()
    rerank = ColBERTRerank(model=words, top_n=1)
    chat = index.as_chat_engine(
        chat_mode=mode,
        llm=llm,
        memory=ChatMemoryBuffer.from_defaults(llm=llm),
        similarity_top_k=3,
        node_postprocessors=[rerank],
    )
    assert ids(chat.chat("dog barks").source_nodes) == ["dog"]
    assert reached(llm.prompts) == ["dog"]
    llm.prompts.clear()
    chat.reset()
    assert ids((await chat.achat("bird sings")).source_nodes) == ["bird"]
    assert "bird" in reached(llm.prompts)


# With other retrievers


class Words(BaseRetriever):
    """BM25."""

    def __init__(self, nodes, k):
        super().__init__()
        self.nodes, self.k, self.bm25 = nodes, k, bm25s.BM25()
        self.bm25.index([node.get_content().split() for node in nodes], show_progress=False)

    def _retrieve(self, query_bundle):
        (best,), (scores,) = self.bm25.retrieve([query_bundle.query_str.split()], k=self.k, show_progress=False)
        return [
            NodeWithScore(node=self.nodes[place], score=float(score))
            for place, score in zip(best, scores, strict=True)
            if score > 0
        ]


@pytest.mark.parametrize("mode", ["reciprocal_rerank", "relative_score", "simple"])
async def test_fusion_with_bm25_merges_the_same_nodes(index, mode):
    fusion = QueryFusionRetriever(
        [index.as_retriever(similarity_top_k=3), Words(nodes(), 3)],
        num_queries=1,
        mode=mode,
        similarity_top_k=3,
        use_async=False,
    )
    found = fusion.retrieve("dog barks")
    assert ids(found)[0] == "dog"
    assert len(set(ids(found))) == len(found) == 3
    assert ids(await fusion.aretrieve("dog barks"))[0] == "dog"


def test_retriever_evaluator_measures_it(index):
    evaluator = RetrieverEvaluator.from_metric_names(["mrr", "hit_rate"], retriever=index.as_retriever(similarity_top_k=2))
    assert evaluator.evaluate(query="dog barks", expected_ids=["dog"]).metric_vals_dict == {"mrr": 1, "hit_rate": 1}
    second = evaluator.evaluate(query="dog at night", expected_ids=["puppy"]).metric_vals_dict
    assert second == {"mrr": 0.5, "hit_rate": 1}
    assert evaluator.evaluate(query="dog barks", expected_ids=["fish"]).metric_vals_dict == {"mrr": 0, "hit_rate": 0}


# Tools and agents


async def test_tools_give_the_text_to_whom_calls_them(index):
    tool = RetrieverTool.from_defaults(index.as_retriever(similarity_top_k=1), name="pets")
    assert reached([tool.call(input="dog barks").content]) == ["dog"]
    assert reached([(await tool.acall(input="bird sings")).content]) == ["bird"]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # the workflow looks at every attribute of the agent
async def test_an_agent_calls_the_query_engine_and_reads_what_it_found(index):
    mock = pytest.importorskip("llama_index.core.llms.mock")
    blocks = pytest.importorskip("llama_index.core.base.llms.types")
    if not hasattr(mock, "MockFunctionCallingLLM"):
        pytest.skip("this llama-index-core has no mock model that calls functions")
    from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult

    heard = []

    def respond(messages, **_):
        heard.append([message.role.value for message in messages])
        if messages[-1].role.value == "tool":
            return ChatMessage(role="assistant", content=f"I read: {messages[-1].content}")
        call = blocks.ToolCallBlock(tool_call_id="1", tool_name="pets", tool_kwargs={"input": "dog barks"})
        return ChatMessage(role="assistant", blocks=[call])

    llm = mock.MockFunctionCallingLLM(response_generator=respond)
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=1)
    tool = QueryEngineTool.from_defaults(engine, name="pets", description="All about pets.")
    agent = FunctionAgent(tools=[tool], llm=llm, streaming=False)
    handler = agent.run("What barks?", memory=ChatMemoryBuffer.from_defaults(llm=llm))
    results = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
    answer = str(await handler)
    assert reached([answer]) == ["dog"]
    assert ids(results[0].tool_output.raw_output.source_nodes) == ["dog"]
    assert heard[-1][-3:] == ["user", "assistant", "tool"]
