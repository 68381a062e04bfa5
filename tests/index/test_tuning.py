"""The quickest search that finds enough."""

from __future__ import annotations

import pytest
from builders.grown import found, recall

from colbert_core import Index, Tuning
from colbert_core.search.config import ladder_of_configs


@pytest.mark.parametrize("target", [0.3, 0.9, 1.0])
def test_tuning_reaches_its_target(grown, target):
    index, queries = grown
    tuned = index.tune(target, queries=queries, progress=False)
    assert isinstance(tuned, Tuning)
    assert tuned.recall >= target
    assert tuned.milliseconds > 0
    assert (tuned.config, tuned.recall, tuned.milliseconds) in tuned.tried
    assert recall(found(index, queries, config=tuned.config), found(index, queries, exact=True)) == pytest.approx(tuned.recall)


def test_tuning_without_queries_takes_passages(grown):
    index, _ = grown
    assert index.tune(0.8, k=5, progress=False).recall >= 0.8


def test_the_last_config_to_try_looks_at_everything(grown):
    index, queries = grown
    last = ladder_of_configs(10, 2400)[-1]
    assert found(index, queries, config=last) == found(index, queries, exact=True)


def test_what_cannot_be_tuned_is_refused(grown):
    index, _ = grown
    with pytest.raises(ValueError, match="queries"):
        index.tune(queries=[])
    with pytest.raises(ValueError, match="target_recall"):
        index.tune(1.5)
    with pytest.raises(ValueError, match="passages"):
        Index.create(None, dim=4).tune()
