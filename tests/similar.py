"""The exact similarity of two sets of texts, to test the search for near-duplicates."""

from collections.abc import Sequence

from sklearn.feature_extraction.text import CountVectorizer

from rlhf_sentiment.data.near_duplicates import shingles


def largest_similarity(texts: Sequence[str], others: Sequence[str]) -> float:
    """Return the largest Jaccard similarity of any text and any other, by their three-word shingles."""
    vectorizer = CountVectorizer(analyzer=shingles, binary=True)
    known = vectorizer.fit_transform(others)
    sizes = known.sum(axis=1).A1
    largest = 0.0
    for start in range(0, len(texts), 2000):
        part = texts[start : start + 2000]
        common = (vectorizer.transform(part) @ known.T).tocoo()
        own = [len(shingles(text)) for text in part]
        largest = max(
            [largest, *(n / (own[i] + sizes[j] - n) for i, j, n in zip(common.row, common.col, common.data, strict=True))]
        )
    return largest
