"""Names of files in an evaluation's output folder, and of the environment between its processes."""

RESULTS_FILE = "results.json"
DOCUMENT_FILE = "evaluation.json"
RESULT_FILE = "result.json"
REPORT_FILE = "report.html"
SAMPLES_FOLDER = "samples"
SCORES_FOLDER = "scores"

PROCESS_ENV = "ALIDADE_PROCESS"
"""Number of a process in its pod, from 0."""
OUTCOME_ENV = "ALIDADE_OUTCOME"
"""File that a process leaves its result document in."""
