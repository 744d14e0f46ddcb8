"""text-generation-inference's own client reads the answers that an endpoint reads.

The client wants an older huggingface-hub than transformers does, so it lives in an environment of its own under
.tools, which the first run of this test makes.
"""

import json
import subprocess

import pytest

from alidade_crds.contract import JobEndpoint
from alidade_eval.endpoint import HttpEndpoint
from alidade_eval.subjects import Answer, AnswerSettings
from tests.environments import python_with
from tests.eval.servers import Answer as Reply
from tests.eval.servers import Json, Script, as_json, generated, serving

CLIENT = "text-generation==0.7.0"
ASK = """
import json, sys
from text_generation import Client
client = Client(sys.argv[1])
found = client.generate(sys.argv[2], max_new_tokens=9)
print(json.dumps([found.generated_text, found.details.finish_reason.value, found.details.generated_tokens]))
"""


@pytest.fixture(scope="module")
def python_with_client() -> str:
    """An interpreter that has the client."""
    return python_with(CLIENT, "text-generation")


@pytest.mark.slow
def test_both_clients_read_the_same_answer(python_with_client: str) -> None:
    def reply(number: int, body: Json) -> Reply:
        assert body["parameters"]["max_new_tokens"] == 9
        answer = generated(f"an answer to {body['inputs']}", finish="length")
        # This client posts to `/`, where the server answers with a list; ours to /generate.
        return as_json([json.loads(answer[2])]) if script.asked[number].path == "/" else answer

    script = Script(reply, openai=False, tgi=True)
    found: dict[int, Answer] = {}
    with serving(script) as url:
        subject = HttpEndpoint.connect(JobEndpoint(name="served", url=url), say=lambda _text: None, environment={})
        settings = AnswerSettings(max_new_tokens=9)
        asked = [[{"role": "user", "content": "who are you?"}]]
        subject.answers(asked, settings, keys=[0], seed=0, keep=found.__setitem__)
        done = subprocess.run(
            [python_with_client, "-c", ASK, url, "who are you?"], capture_output=True, text=True, check=True
        )
    assert json.loads(done.stdout) == ["an answer to who are you?", "length", 6]
    assert [one.path for one in script.asked] == ["/generate", "/"]
    assert found[0] == Answer("an answer to who are you?", finished=False, tokens=6)
