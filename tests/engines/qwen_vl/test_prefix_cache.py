"""The cache of encoded photos: what it evicts, and which photos share an entry."""

import numpy as np
import pytest

from matir_cli.engines.llama_cpp.bindings import SequenceState
from matir_cli.engines.protocols import JudgePhoto
from matir_cli.engines.qwen_vl.prefix_cache import PrefixCache, compute_photo_key
from matir_cli.records import Verdict


def state(size: int, value: int = 0) -> SequenceState:
    return np.full(size, value, np.uint8)


def key(number: int) -> tuple[int, bytes]:
    return number, b""


def test_a_photo_is_known_by_number_size_and_pixels() -> None:
    image = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    same = compute_photo_key(JudgePhoto(1, image))
    assert same == compute_photo_key(JudgePhoto(1, image.copy()))
    others = [JudgePhoto(2, image), JudgePhoto(1, image.reshape(4, 2, 3)), JudgePhoto(1, image + 1)]
    assert len({same, *map(compute_photo_key, others)}) == 4


def test_what_was_put_comes_back() -> None:
    cache = PrefixCache(100)
    cache.put(key(1), state(40, 7), 33)
    assert np.array_equal(cache.get(key(1)).state, state(40, 7))
    assert cache.get(key(1)).next_position == 33
    assert cache.size == 40
    assert cache.photos == {1}
    cache.clear()
    assert key(1) not in cache
    with pytest.raises(KeyError):
        cache.get(key(1))


def test_the_least_likely_photo_of_a_search_goes_first() -> None:
    cache = PrefixCache(100)
    for number, margin in ((1, 3.0), (2, -1.0), (3, 0.5)):
        cache.put(key(number), state(40), 0)
        cache.record_verdicts(key(number), ["dog"], [Verdict(margin, 0.0)])
    assert cache.photos == {1, 3}
    cache.put(key(4), state(40), 0)
    assert cache.photos == {1, 4}, "a photo without a verdict is kept"


def test_photos_of_earlier_searches_go_before_all_others() -> None:
    cache = PrefixCache(100)
    cache.put(key(1), state(40), 0)
    cache.record_verdicts(key(1), ["dog"], [Verdict(9.0, 0.0)])
    cache.put(key(2), state(40), 0)
    cache.record_verdicts(key(2), ["cat"], [Verdict(-9.0, 0.0)])
    cache.put(key(3), state(40), 0)
    assert cache.photos == {2, 3}


def test_the_best_of_several_verdicts_counts() -> None:
    cache = PrefixCache(100)
    for number, margins in ((1, (-5.0, 2.0)), (2, (1.0, 1.0))):
        cache.put(key(number), state(40), 0)
        cache.record_verdicts(key(number), ["dog", "cat"], [Verdict(margin, 0.0) for margin in margins])
    cache.put(key(3), state(40), 0)
    assert cache.photos == {1, 3}


@pytest.mark.parametrize("capacity", [0, 39])
def test_a_photo_that_is_too_large_is_not_kept(capacity: int) -> None:
    cache = PrefixCache(capacity)
    cache.put(key(1), state(40), 0)
    assert cache.size == 0
    cache.record_verdicts(key(1), ["dog"], [Verdict(1.0, 0.0)])
    assert cache.photos == frozenset()
