"""The suites of a document, their records read and checked: all that can be wrong before a model is loaded."""

from alidade_crds.contract import EvaluationDocument
from alidade_crds.evaluation import SuiteType
from alidade_engine.sources import Locations
from alidade_eval.items import load_items
from alidade_eval.judge import Judge
from alidade_eval.suites.arena import ArenaSuite
from alidade_eval.suites.base import Suite
from alidade_eval.suites.custom import CustomSuite
from alidade_eval.suites.diversity import DiversitySuite
from alidade_eval.suites.generation import GenerationSuite, QuestionsSuite
from alidade_eval.suites.perplexity import PerplexitySuite
from alidade_eval.suites.ranking import RankingSuite
from alidade_eval.suites.reward import RewardSuite, reward_loader


def make_suites(document: EvaluationDocument, locations: Locations) -> list[Suite]:
    """Every suite of the document. Raises JobFailure for the first that lacks what it needs."""
    return [_make(document, place, locations) for place in range(len(document.suites))]


def _make(document: EvaluationDocument, place: int, locations: Locations) -> Suite:
    spec, seed, field = document.suites[place], document.seed, f"spec.suites[{place}]"
    if spec.type is SuiteType.HARNESS:
        from alidade_eval.suites.harness import HarnessSuite  # seconds: lm-evaluation-harness

        return HarnessSuite(spec, locations, seed=seed, field=field)
    items = load_items(spec, locations, field)
    match spec.type:
        case SuiteType.GENERATION:
            return GenerationSuite(spec, items, seed=seed, field=field)
        case SuiteType.QUESTIONS:
            return QuestionsSuite(spec, items, seed=seed, field=field)
        case SuiteType.RANKING:
            return RankingSuite(spec, items, field=field)
        case SuiteType.PERPLEXITY:
            return PerplexitySuite(spec, items, field=field)
        case SuiteType.DIVERSITY:
            return DiversitySuite(spec, items, seed=seed, field=field)
        case SuiteType.CUSTOM:
            return CustomSuite(spec, items, seed=seed, field=field)
        case SuiteType.REWARD:
            load = reward_loader(spec, locations, field=field)
            return RewardSuite(spec, items, seed=seed, field=field, load=load)
        case SuiteType.ARENA:
            judge = Judge(spec.judge, place) if spec.judge is not None else None
            reward = reward_loader(spec, locations, field=field) if judge is None else None
            return ArenaSuite(spec, items, seed=seed, field=field, load=reward, judge=judge, baseline=document.baseline)
