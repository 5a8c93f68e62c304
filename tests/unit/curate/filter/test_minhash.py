"""MinHash proposes what the plain loop over all pairs finds, on texts in memory and on the disk, in bounded memory."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlhf.curate.filter import minhash
from rlhf.curate.filter.minhash import band_keys, bands, nearest_kept
from rlhf.curate.filter.stored import Drops, Some, StoredTexts

SYLLABLES = "가나다라마바사아자차카타파하고노도로모보소오조초구누두루무부수우"


def changed_texts(seed: int, count: int = 300) -> list[str]:
    """Texts of which about half are earlier ones with some syllables changed, and a few are equal or very short."""
    draw = random.Random(seed)
    texts = ["네", "네", "", "네요", "네요"]
    while len(texts) < count:
        text = "".join(draw.choices(SYLLABLES, k=draw.randint(20, 80)))
        if draw.random() < 0.6:
            letters = list(draw.choice(texts[3:]) or text)
            for _ in range(draw.randint(0, 4)):
                letters[draw.randrange(len(letters))] = draw.choice(SYLLABLES)
            text = "".join(letters)
        texts.append(text)
    return texts


def all_similarities(texts: list[str]) -> list[list[float]]:
    """The Jaccard index of each text with every earlier one."""
    sets = [{text[i : i + 3] for i in range(max(len(text) - 2, 1))} for text in texts]
    return [[len(own & each) / len(own | each) for each in sets[:number]] for number, own in enumerate(sets)]


@pytest.mark.parametrize("seed", range(3))
def test_what_is_dropped_repeats_what_is_kept_and_what_is_kept_repeats_nothing(seed: int, tmp_path: Path) -> None:
    texts = changed_texts(seed)
    full = all_similarities(texts)
    found = dict(nearest_kept(texts, 0.7))
    assert len(found) > 50
    kept = [number for number in range(len(texts)) if number not in found]
    for number, (earlier, similarity) in found.items():
        assert earlier in kept
        assert similarity == full[number][earlier] >= 0.7
    # A pair is proposed with probability 1 - (1 - s^6)^20: 0.93 at 0.705, 0.998 at 0.8.
    assert max(full[number][other] for number in kept for other in kept if other < number) < 0.75
    stored = StoredTexts(tmp_path)
    for text in texts:
        stored.append(text)
    assert dict(nearest_kept(stored, 0.7)) == found


@pytest.mark.parametrize("characters", [1, 150, 10**6])
def test_how_much_is_hashed_and_kept_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch, characters: int) -> None:
    texts = changed_texts(7, count=120)
    found, keys = dict(nearest_kept(texts, 0.7)), band_keys(texts, 4, 3)
    monkeypatch.setattr(minhash, "_BATCH", characters)
    monkeypatch.setattr(minhash, "_KEPT", characters)
    assert dict(nearest_kept(texts, 0.7)) == found
    np.testing.assert_array_equal(band_keys(texts, 4, 3), keys)


def test_a_chain_goes_on_after_what_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """One band of one minimum: equal texts drop one another, and a kept text behind them is still found."""
    monkeypatch.setattr(minhash, "bands", lambda _: (1, 1))
    monkeypatch.setattr(minhash, "band_keys", lambda texts, *_: np.zeros((1, len(texts)), dtype=np.uint32))
    texts = ["가나다라마", "하하하하하", "가나다라마", "가나다라마", "하하하하하", "가나다라마"]
    assert dict(nearest_kept(texts, 0.9)) == {2: (0, 1.0), 3: (0, 1.0), 4: (1, 1.0), 5: (0, 1.0)}


def test_the_minima_agree_as_often_as_the_jaccard_index_says() -> None:
    """100 of 150 3-grams are shared: 128 bands of one minimum agree in 2/3, with a deviation of 0.042."""
    letters = [chr(0xAC00 + i) for i in range(300)]
    one, other = letters[:127], [*letters[25:127], *letters[200:225]]
    grams = [{tuple(each[i : i + 3]) for i in range(len(each) - 2)} for each in (one, other)]
    assert (len(grams[0] & grams[1]), len(grams[0] | grams[1])) == (100, 150)
    keys = band_keys(["".join(one), "".join(other)], 128, 1)
    assert np.mean(keys[:, 0] == keys[:, 1]) == pytest.approx(2 / 3, abs=3 * 0.042)


def test_bands_are_those_of_the_smallest_weighted_error() -> None:
    """1 - (1 - s^r)^b: at 0.7 of 128 minima, pairs at 0.8 are proposed nearly always, pairs at 0.3 nearly never."""
    count, width = bands(0.7)
    assert count * width <= 128
    assert 1 - (1 - 0.8**width) ** count > 0.99
    assert 1 - (1 - 0.3**width) ** count < 0.05


def test_stored_texts_are_the_texts(tmp_path: Path) -> None:
    texts = ["가나", "", "half \ud83d pair", "끝\n"]
    stored = StoredTexts(tmp_path)
    for text in texts:
        stored.append(text)
    assert (list(stored), len(stored), stored[2]) == (texts, 4, texts[2])
    assert list(Some(stored, [3, 0])) == ["끝\n", "가나"]
    assert list(tmp_path.iterdir()) == []
    stored.close()


def test_dropped_rows_keep_their_first_reason_and_the_first_examples() -> None:
    drops = Drops(["short", "repeat"])
    for number in range(9):
        drops.add(*(("short", f"text {number}") if number % 3 == 0 else ()))
    for number in (0, 1, 2, 4, 5, 7, 8):
        drops.drop(number, "repeat", f"{number} ~ 0")
    assert drops.of(0) == ("short", "text 0")
    assert [drops.of(number) for number in (1, 7, 8)] == [("repeat", "1 ~ 0"), ("repeat", "7 ~ 0"), ("repeat", "")]
    assert drops.num_kept == 0
    assert list(drops.kept()) == []


@pytest.mark.parametrize(("length", "counts"), [(100, (3000, 6000)), (4000, (150, 450))])
def test_memory_does_not_grow_with_the_texts(tmp_path: Path, length: int, counts: tuple[int, int]) -> None:
    """The peak of the interpreter's own memory on more rows is that on fewer and 0.2 kB for each row more."""
    code = (
        "import sys, tracemalloc, json, pathlib\n"
        "from rlhf.curate.filter.command import FilterOptions, filter_rows\n"
        "folder, count = pathlib.Path(sys.argv[1]), int(sys.argv[2])\n"
        "prompts = (f'{n} ' + chr(0xAC00 + n % 9000) * int(sys.argv[3]) for n in range(count))\n"
        "rows = (json.dumps({'prompt': prompt}) + chr(10) for prompt in prompts)\n"
        "(folder / 'in.jsonl').write_text(''.join(rows))\n"
        "options = FilterOptions(str(folder / 'in.jsonl'), folder / 'out.jsonl', dedup=('minhash', 0.7))\n"
        "import rlhf.curate.filter.repeats, rlhf.curate.filter.embeddings\n"
        "tracemalloc.start(); filter_rows(options); print(tracemalloc.get_traced_memory()[1])\n"
    )
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", code, str(tmp_path), str(count), str(length)]))
        for count in counts
    ]
    assert peaks[1] - peaks[0] < (counts[1] - counts[0]) * 200  # the prompts alone have more than 300 bytes each
