"""Topics of short Korean texts: TF-IDF of character n-grams, mini-batch k-means, words as labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy

from rlhf.curate.patterns import read_patterns

MAX_TOPICS = 12
MIN_TEXTS = 20
MAX_CHARACTERS = 400  # of a text that are used
NUM_TERMS = 4
_PATTERNS = read_patterns("rlhf.curate.stats", "topics.yaml")


class Topic(NamedTuple):
    """A cluster: its size, the words that distinguish it, and the texts nearest to its centre."""

    size: int
    terms: list[str]
    examples: list[str]


def topics_of(texts: Sequence[str], seed: int = 0) -> list[Topic]:
    """The topics, largest first; none for fewer than `MIN_TEXTS` distinct texts."""
    short = [_PATTERNS["form"].sub(" ", text[:MAX_CHARACTERS]) for text in texts]
    distinct = list(dict.fromkeys(short))
    originals = dict(zip(reversed(short), reversed(texts), strict=True))  # the first text of each
    if len(distinct) < MIN_TEXTS:
        return []
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 3), max_features=20_000, min_df=2, max_df=0.2, sublinear_tf=True
    )
    try:
        vectors = vectorizer.fit_transform(distinct)
    except ValueError:  # no n-gram is in two texts
        return []
    number = min(MAX_TOPICS, int((len(distinct) / 4) ** 0.5))
    model = MiniBatchKMeans(number, random_state=seed, n_init=3, batch_size=1024).fit(vectors)
    distances = model.transform(vectors)
    topic_of_text = dict(zip(distinct, model.labels_.tolist(), strict=True))
    sizes = Counter(topic_of_text[text] for text in short)
    words = [_words(text) for text in distinct]
    whole = [originals[text] for text in distinct]
    return [
        Topic(size, _terms(words, model.labels_, topic), _nearest(whole, model.labels_, distances, topic))
        for topic, size in sizes.most_common()
    ]


def _words(text: str) -> set[str]:
    words = {_PATTERNS["particle"].sub("", word) for word in _PATTERNS["word"].findall(text)}
    return {word for word in words if not _PATTERNS["everyday"].fullmatch(word)}


def _terms(words: Sequence[set[str]], labels: numpy.ndarray, topic: int) -> list[str]:
    """The words that are most over-represented in the topic, by observed minus expected texts over sqrt(expected)."""
    inside = Counter(word for each, label in zip(words, labels, strict=True) if label == topic for word in each)
    everywhere = Counter(word for each in words for word in each)
    share = int((labels == topic).sum()) / len(labels)
    scores = {
        word: (count - share * everywhere[word]) / (share * everywhere[word]) ** 0.5
        for word, count in inside.items()
        if count > 1
    }
    return sorted(scores, key=lambda word: (-scores[word], word))[:NUM_TERMS]


def _nearest(texts: Sequence[str], labels: numpy.ndarray, distances: numpy.ndarray, topic: int) -> list[str]:
    members = numpy.flatnonzero(labels == topic)
    nearest = members[numpy.argsort(distances[members, topic], kind="stable")[:2]]
    return [texts[place] for place in nearest]
