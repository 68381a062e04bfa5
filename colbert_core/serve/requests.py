"""What requests hold. Unknown keys are an error: a filter that is spelt wrong must not find everything."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from colbert_core.serve.where import where_from_json

Text = Annotated[str, StringConstraints(strict=True)]
Count = Annotated[int, Field(strict=True, ge=1)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
WhereJson = Annotated[dict[str, Any], AfterValidator(where_from_json)]
Matrix = list[list[Annotated[float, Field(strict=True)]]]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Ranking(_Body):
    k: Count = Field(10, description="Most hits.")
    where: WhereJson | None = Field(None, description='Only passages with such metadata: {"year": {"$gte": 2020}}.')
    ids: list[Text] | None = Field(None, description="Only passages with these ids.")
    min_relevance: Share | None = Field(None, description="Least relevance of a hit.")
    mode: Literal["maxsim", "hybrid", "words"] | None = Field(
        None, description="What ranks; hybrid if the index has words, else maxsim, where it is left out."
    )
    weight: Share | None = Field(None, description="Of the words in hybrid mode.")


class SearchRequest(_Ranking):
    """A question to an index: a text, or the vectors of one."""

    query: Text | Matrix
    evidence: bool | Literal["full"] = Field(False, description='Which words matched; "full" has all similarities as well.')


class SearchManyRequest(_Ranking):
    """Several questions, each with hits of its own."""

    queries: list[Text | Matrix]
    evidence: bool | Literal["full"] = False


class SearchMeanRequest(_Ranking):
    """Several questions, and the passages that match them best on average."""

    queries: list[Text | Matrix]


class ExplainRequest(_Body):
    """A question and a passage of the index."""

    query: Text
    id: Text
    mode: Literal["maxsim", "hybrid", "words"] = "maxsim"
    min_similarity: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)] | None = None
    full: bool = Field(False, description="All similarities as well.")


class ExcerptsRequest(_Body):
    """A question, and passages to cut down to what answers it: those with these ids, or the k best."""

    query: Text
    ids: list[Text] | None = None
    k: Count = 5
    where: WhereJson | None = None
    mode: Literal["maxsim", "hybrid", "words"] | None = None
    max_tokens: Count | None = Field(None, description="Most tokens of all excerpts together.")
    keep_ratio: Share | None = Field(None, description="Instead, the part of all tokens to keep.")


class PassageIn(_Body):
    """A passage to add."""

    id: Text
    text: Text
    metadata: dict[str, Any] = Field(default_factory=dict)


class AddRequest(_Body):
    """Passages to add; one whose id is known replaces the old one."""

    passages: list[PassageIn]


class GetRequest(_Body):
    """Ids of passages."""

    ids: list[Text]


class ListRequest(_Body):
    """Which passages to list, page by page."""

    where: WhereJson | None = None
    ids: list[Text] | None = None
    limit: Count | None = Field(None, description="Most passages of the page; 100 where it is left out.")
    after: Text | None = Field(None, description='The "next" of the page before.')


class CountRequest(_Body):
    """Which passages to count."""

    where: WhereJson | None = None


class DeleteRequest(_Body):
    """Passages to delete: by id, or by a filter; one of them."""

    ids: list[Text] | None = None
    where: WhereJson | None = None


class MetadataRequest(_Body):
    """Metadata to change of passages that are there: by id, by a filter, or both."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    ids: list[Text] | None = None
    where: WhereJson | None = None
    remove: list[Text] = Field(default_factory=list)


class EncodeRequest(_Body):
    """Texts to encode."""

    texts: list[Text]
    kind: Literal["query", "passage"] = "query"
    windows: bool = Field(False, description="Which characters each vector and each window stands for, as well.")
    index: Text | None = Field(None, description="By the encoder of this index; left out, by the first one's.")
