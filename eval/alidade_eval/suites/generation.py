"""Suites that compare answers with expected ones: generation and questions."""

from collections.abc import Sequence

import numpy as np

from alidade_crds.contract import JobSuite
from alidade_crds.evaluation import SUITE_METRICS
from alidade_eval.asked import Answers, Collection, Rows
from alidade_eval.items import Item, need
from alidade_eval.measures import Measure
from alidade_eval.metrics.bleu import bleu, bleu_statistics, tokenizer_for
from alidade_eval.metrics.matching import exact_match, matches, token_f1
from alidade_eval.metrics.rouge import KINDS, rouge_scores
from alidade_eval.suites.answering import indices_of, mean_measure, samples, texts, troubles
from alidade_eval.suites.base import Findings, Suite, check_metrics, wanted_only, whole


class GenerationSuite(Suite):
    """BLEU, ROUGE, exact match and F1 of the answers against the records' own."""

    def __init__(self, spec: JobSuite, items: Sequence[Item], *, seed: int, field: str) -> None:
        """Raises JobFailure when records have no answer to compare with."""
        check_metrics(spec, SUITE_METRICS[spec.type], field)
        lacking = [item for item in items if not any(reference.strip() for reference in item.references)]
        need(items, lacking, field=field, dataset=spec.dataset, what="there is no answer to compare with.")
        super().__init__(spec, items)
        self._answers = Answers.of(spec, items, seed)

    def collections(self) -> Sequence[Collection]:
        """Answers."""
        return [self._answers]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        found = whole(rows, self._answers.key, models)
        indices, answers = indices_of(found), texts(found)
        references = [self.items[index].references for index in indices]
        scores = {"exact_match": {model: exact_match(own, references) for model, own in answers.items()}}
        scores["f1"] = {model: token_f1(own, references) for model, own in answers.items()}
        rouge = {model: rouge_scores(own, references) for model, own in answers.items()}
        scores |= {kind: {model: own[kind] for model, own in rouge.items()} for kind in KINDS}
        tokenizer = tokenizer_for(references)
        statistics = {model: bleu_statistics(own, references, tokenizer=tokenizer) for model, own in answers.items()}
        measures = [
            Measure("bleu", "higher", statistics, bleu, least=0.0),
            *(mean_measure(kind, scores[kind], least=0.0) for kind in KINDS),
            mean_measure("exact_match", scores["exact_match"], binary=True),
            mean_measure("f1", scores["f1"], least=0.0),
        ]
        return Findings(
            measures=[*wanted_only(measures, self.spec), *troubles(rows, self._answers, models)],
            samples=samples(self.items, indices, answers, scores),
            details={"bleuTokenizer": tokenizer},
        )


class QuestionsSuite(Suite):
    """Whether the questions of the manifest are answered as they expect."""

    def __init__(self, spec: JobSuite, items: Sequence[Item], *, seed: int, field: str) -> None:
        check_metrics(spec, SUITE_METRICS[spec.type], field)
        super().__init__(spec, items)
        self._answers = Answers.of(spec, items, seed)

    def collections(self) -> Sequence[Collection]:
        """Answers."""
        return [self._answers]

    def findings(self, rows: Rows, models: Sequence[str]) -> Findings:
        """As `Suite.findings`."""
        found = whole(rows, self._answers.key, models)
        indices, answers = indices_of(found), texts(found)
        asked = [self.spec.questions[index] for index in indices]
        expected, kinds = [one.expect for one in asked], [one.match for one in asked]
        correct = {model: np.asarray(matches(own, expected, kinds)) for model, own in answers.items()}
        return Findings(
            measures=[mean_measure("correct", correct, binary=True), *troubles(rows, self._answers, models)],
            samples=samples(self.items, indices, answers, {"correct": correct}),
        )
