"""Topics of short Korean texts: TF-IDF of character n-grams, mini-batch k-means, words as labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy

MAX_TOPICS = 12
MIN_TEXTS = 20
MAX_CHARACTERS = 400  # of a text that are used
NUM_TERMS = 4
_WORD = re.compile(r"[가-힣]{2,}|[A-Za-z]{3,}")
_PARTICLE = re.compile(r"(?<=[가-힣]{2})(?:에서는?|에게|으로|부터|까지|이나|에는|[은는이가을를의에로와과도])$")
_EVERYDAY = re.compile(
    "그리고|그런데|하지만|그래서|어떻게|무엇|무엇인가요|어떤|있는|있나요|있어|있을까요|하는|해주세요|주세요|"
    "알려주세요|설명해주세요|대해|대한|위해|위한|경우|때문|정말|그냥|너무|진짜|지금|근데|이렇게|그렇게|같은|"
    "같아|이거|그거|나는|너는|내가|네가|제가|저는|많이|우리|사람|이런|그런|저런|가장|다음|방법|것이|것은|"
    "것을|않는|없는|되는|하면|수도|보면|요즘|혹시|대해서|the|and|for|you|what|how"
)
# Verbs and endings show how a question is phrased, not what it is about.
_FORM = re.compile(
    r"[가-힣]*(?:[까나가네데래]요|[어아해에예]요|[세죠]요?|니다|니까|하고|하[는기]|되는|해[줘서]|시오|으?면|[았었]어|싶어|같아|있[어는고]|어떤)(?![가-힣])"
)


class Topic(NamedTuple):
    """A cluster: its size, the words that distinguish it, and the texts nearest to its centre."""

    size: int
    terms: list[str]
    examples: list[str]


def topics_of(texts: Sequence[str], seed: int = 0) -> list[Topic]:
    """The topics, largest first; none for fewer than `MIN_TEXTS` distinct texts."""
    short = [_FORM.sub(" ", text[:MAX_CHARACTERS]) for text in texts]
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
        Topic(
            size,
            _terms(words, model.labels_, topic),
            _nearest(whole, model.labels_, distances, topic),
        )
        for topic, size in sizes.most_common()
    ]


def _words(text: str) -> set[str]:
    words = {_PARTICLE.sub("", word) for word in _WORD.findall(text)}
    return {word for word in words if not _EVERYDAY.fullmatch(word)}


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
