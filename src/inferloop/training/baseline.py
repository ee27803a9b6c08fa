"""What a network must beat: TF-IDF on word and character n-grams with a linear SVM, by scikit-learn."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from inferloop.core.datatypes import Array
from inferloop.core.plugins import missing_package


class Baseline(NamedTuple):
    """What the baseline says of the rows to judge by: int64 [N], the index of a class; and how long it took."""

    predicted: Array
    seconds: float


def tfidf_svm(texts: Sequence[str], labels: Array, *, judge: Sequence[str], c: float = 0.3) -> Baseline:
    """Fit on texts and labels, predict the texts of `judge`.

    Word 1-2-grams and character 2-5-grams within words, logarithmic counts, `LinearSVC`.

    Raises:
        MissingDependency: scikit-learn is not installed.
    """
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_union
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise missing_package("scikit-learn", "sklearn", "the TF-IDF baseline") from error
    began = time.perf_counter()
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2))
    letters = TfidfVectorizer(sublinear_tf=True, analyzer="char_wb", ngram_range=(2, 5))
    features = make_union(words, letters)
    model = LinearSVC(C=c, random_state=0).fit(features.fit_transform(texts), labels)
    predicted = np.asarray(model.predict(features.transform(judge)), np.int64)
    return Baseline(predicted, time.perf_counter() - began)
