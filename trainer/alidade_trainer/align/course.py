"""What an alignment came to, step by step, told from its history. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any


def course_of(
    lines: Sequence[Mapping[str, Any]], names: Sequence[str], *, iterations: int, preferences: Mapping[int, Any]
) -> list[dict[str, Any]]:
    """Each step with what was measured before its first and after its last iteration, as lineage.json has it.

    lines: of iterations, in order (alidade_trainer.history). names: of the steps so far. iterations: of the last one
    that count; those after a guard rail's sound one do not. preferences: of steps that learn from some, their address
    and digest.
    """
    course = []
    for index, name in enumerate(names):
        is_last = index + 1 == len(names)
        own = [
            line for line in lines if line["step_index"] == index and (not is_last or line["iteration"] <= iterations)
        ]
        entry: dict[str, Any] = {
            "step": name,
            "iterations": own[-1]["iteration"],
            "optimizerSteps": own[-1]["step"] - own[0]["step"],
            "start": dict(own[0]["metrics"]),
            "metrics": {key: value for line in own[1:] for key, value in line["metrics"].items()},
        }
        if index in preferences:
            entry["data"] = preferences[index]
        course.append(entry)
    return course


def measures_of(course: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The measures of an alignment's result.

    Those of the start model end in `AtStart`, those after a step before the last one begin with its name, as
    `1-raft.evalReward`, and the others are those of the model that came out.
    """
    *earlier, now = course
    first: Mapping[str, float] = course[0]["start"]
    measures = {f"{key}AtStart": value for key, value in first.items()}
    for step in earlier:
        measures |= {f"{step['step']}.{key}": value for key, value in step["metrics"].items() if key in first}
    return {**measures, **now["start"], **now["metrics"]}
