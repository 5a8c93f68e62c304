"""The pruned search finds what a comparison of all pairs finds, and each rule leaves out what it says."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics.pairwise import cosine_similarity
from transformers import AutoModel, AutoTokenizer

from rlhf.curate import near_duplicates
from rlhf.curate.filter import command, repeats
from rlhf.curate.filter.embeddings import embedded
from rlhf.curate.near_duplicates import Pairs, character_vectors, clusters, similar_pairs, word_vectors
from rlhf.errors import DataError, ModelError

TALK = "오늘 날씨가 정말 좋네요 내일은 비가 온대요 점심 메뉴 추천해 주세요 영화 보러 갈까요 책을 읽고 싶어요"
WORDS = TALK.split()


def random_texts(seed: int, number: int = 120) -> list[str]:
    """Sentences of few words, so that many are alike, some equal and some nearly so."""
    chosen = random.Random(seed)
    return [" ".join(chosen.choices(WORDS, k=chosen.randint(1, 6))) for _ in range(number)]


def all_cosines(texts: list[str]) -> NDArray[np.float64]:
    return np.asarray(cosine_similarity(TfidfVectorizer(analyzer="char", ngram_range=(2, 3)).fit_transform(texts)))


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("products", [60, 20_000_000])
def test_the_search_finds_exactly_the_pairs_of_a_full_comparison(
    threshold: float, products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(near_duplicates, "_BLOCK_PRODUCTS", products)
    texts = random_texts(seed=3)
    full = all_cosines(texts)
    expected = {(i, j) for i in range(len(texts)) for j in range(i) if full[i, j] >= threshold - 1e-9}
    assert len(expected) > 3
    found = list(similar_pairs(character_vectors(texts), threshold))
    pairs = [(int(i), int(j)) for block in found for i, j in zip(block.rows, block.columns, strict=True)]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == expected
    assert pairs == sorted(pairs)
    cosines = np.concatenate([block.cosines for block in found])
    assert cosines == pytest.approx([full[pair] for pair in pairs], abs=1e-9)
    assert (len(found) > 10) == (products == 60)


def test_the_search_leaves_its_vectors_alone() -> None:
    vectors = character_vectors(random_texts(seed=4))
    before = vectors.toarray()
    list(similar_pairs(vectors, 0.5))
    assert np.array_equal(vectors.toarray(), before)


def test_a_cosine_by_hand() -> None:
    # 가나 is in both and weighs 1; the other two grams of each weigh ln(3/2) + 1 = 1.405465.
    # 1 / (1 + 2 * 1.405465^2) = 0.201993
    (pairs,) = similar_pairs(character_vectors(["가나다", "가나라"]), 0.2)
    assert pairs.cosines == pytest.approx([0.201993], abs=1e-6)
    assert not len(next(similar_pairs(character_vectors(["가나다", "가나라"]), 0.21)).rows)


def test_texts_without_features_are_like_nothing() -> None:
    for vectors in (character_vectors(["네", "네", ""]), word_vectors(["너 나", "너 나"])):
        assert [len(pairs.rows) for pairs in similar_pairs(vectors, 0.1)] in ([0], [])


def test_clusters_are_the_chains_of_pairs_and_links() -> None:
    # Unit vectors at 0, 40, 80 and 200 degrees with positive parts only: neighbours at 40 degrees have cosine 0.766.
    angles = np.radians([0.0, 40.0, 80.0])
    rows = np.zeros((5, 4))
    rows[:3, 0], rows[:3, 1] = np.cos(angles), np.sin(angles)
    rows[3, 2], rows[4, 3] = 1.0, 1.0
    labels = clusters(csr_matrix(rows), 0.7).tolist()
    assert labels[0] == labels[1] == labels[2]
    assert len({labels[2], labels[3], labels[4]}) == 3
    linked = clusters(csr_matrix(rows), 0.9, links=[(0, 4)]).tolist()
    assert linked[0] == linked[4]
    assert len(set(linked)) == 4


def greedy(full: NDArray[np.float64], threshold: float) -> set[int]:
    """Rows that the plain loop over kept rows leaves out."""
    kept: list[int] = []
    for row in range(len(full)):
        if not any(full[row, other] >= threshold - 1e-9 for other in kept):
            kept.append(row)
    return set(range(len(full))) - set(kept)


@pytest.mark.parametrize("seed", range(4))
def test_cosine_repeats_are_those_of_the_plain_loop(seed: int) -> None:
    texts = random_texts(seed)
    full = all_cosines(texts)
    found = repeats.cosine_repeats(texts, 0.5)
    assert set(found) == greedy(full, 0.5)
    for row, (earlier, similarity) in found.items():
        assert earlier < row
        assert earlier not in found
        assert similarity == pytest.approx(full[row, earlier], abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_filter_of_2023_compares_with_every_earlier_prompt(seed: int) -> None:
    texts = random_texts(seed)
    full = cosine_similarity(TfidfVectorizer().fit_transform(texts))
    expected = {row for row in range(1, len(texts)) if full[row, :row].max() >= 0.5 - 1e-9}
    assert set(repeats.vaiv_repeats(texts, 0.5)) == expected
    assert expected != greedy(full, 0.5)


def test_the_two_rules_differ_on_a_chain() -> None:
    chain = [Pairs(np.array([1, 2]), np.array([0, 1]), np.array([0.6, 0.7]))]
    assert repeats.of_kept(chain) == {1: (0, 0.6)}
    assert repeats.of_any(chain) == {1: (0, 0.6), 2: (1, 0.7)}


def test_equal_texts_repeat_however_short_but_not_by_the_words_of_2023() -> None:
    assert repeats.cosine_repeats(["네", "네", " 네 "], 0.5) == {1: (0, 1.0), 2: (0, 1.0)}
    assert repeats.vaiv_repeats(["너 나", "너 나"], 0.5) == {}
    assert repeats.vaiv_repeats(["좋은 아침", "좋은 아침"], 0.5) == {1: (0, 1.0)}


def test_minhash_takes_only_what_reaches_the_threshold() -> None:
    long = "주말에 부모님과 함께 다녀올 만한 조용한 바닷가 마을을 몇 군데 추천해 주세요"
    texts = [long, f"{long}.", "요즘 잠이 안 와요", long]
    grams = [{text[i : i + 3] for i in range(len(text) - 2)} for text in texts]
    jaccard = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
    found = repeats.minhash_repeats(texts, 0.7)
    assert found == {1: (0, pytest.approx(jaccard)), 3: (0, 1.0)}
    assert 1 not in repeats.minhash_repeats(texts, 1.0)


def test_too_many_prompts_are_told_of_minhash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MAX_ROWS", 2)
    with pytest.raises(DataError, match="--dedup minhash"):
        repeats.cosine_repeats(["가", "나", "다"], 0.5)


def test_embeddings_are_centred_means_of_each_texts_own_tokens(tiny_neox: Path) -> None:
    texts = ["안녕하세요?", "오늘은 날씨가 참 좋네요! 산책하러 갈까요?", "네", "네"]
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_neox), AutoModel.from_pretrained(tiny_neox).eval()
    with torch.no_grad():
        alone = [model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0].mean(0) for text in texts]
    centred = torch.stack(alone) - torch.stack(alone).mean(0)
    expected = centred / centred.norm(dim=1, keepdim=True)
    vectors = embedded(texts, str(tiny_neox))
    assert vectors == pytest.approx(expected.numpy(), abs=1e-4)  # float32 states of padded batches
    assert repeats.semantic_repeats(vectors, 0.99) == {3: (2, pytest.approx(1.0, abs=1e-5))}


def test_dense_blocks_do_not_change_the_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(5).normal(size=(60, 3)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    monkeypatch.setattr(repeats, "_DENSE_ROWS", 7)
    assert set(repeats.semantic_repeats(points, 0.8)) == greedy((points @ points.T).astype(np.float64), 0.8)


def test_a_folder_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        embedded(["안녕"], str(tmp_path))


def test_an_exact_comparison_says_its_cost_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = random_texts(0)
    repeats.cosine_repeats(texts, 0.5)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(repeats, "SAID_FROM", len(texts))
    monkeypatch.setattr(near_duplicates, "SAID_ABOVE_S", 0.0)
    monkeypatch.setattr(near_duplicates, "_BLOCK_PRODUCTS", 10)
    repeats.cosine_repeats(texts, 0.5)
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith(f"an exact comparison of {len(texts)} prompts takes about 0.0 GB")
    assert second.endswith("texts are compared exactly: about 1 min")
    monkeypatch.setattr(repeats, "BYTES_PER_CHARACTER", 1e8)
    repeats.vaiv_repeats(texts, 0.5)
    size = sum(map(len, texts)) / 10
    assert f"prompts takes about {size:.1f} GB" in capsys.readouterr().err  # longer prompts take more


def test_too_many_prompts_are_refused_while_the_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fifth row cannot be read, and is not reached."""
    rows = tmp_path / "in.jsonl"
    rows.write_text('{"prompt": "가나다"}\n' * 4 + "{\n", encoding="utf-8")
    monkeypatch.setattr(repeats, "MAX_ROWS", 2)
    monkeypatch.setattr(command, "REFUSED_EVERY", 2)
    with pytest.raises(DataError, match="4 prompts are too many"):
        command.filter_rows(command.FilterOptions(str(rows), tmp_path / "out.jsonl", dedup=("cosine", 0.5)))
    assert not (tmp_path / "out.jsonl").exists()
