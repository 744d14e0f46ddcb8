"""The chat templates that `dataset.template` knows by name, as Jinja over `messages`.

A turn of the assistant ends with the tokenizer's own end-of-sequence token, at which every inference engine stops.
`{% generation %}` marks what the model is to produce. Each stands on one line, so that no engine's trimming of white
space around blocks changes it.
"""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# Stanford Alpaca (Taori et al. 2023), which knows one instruction with an optional input; further turns repeat its
# headings.
ALPACA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
    "{% elif messages[0]['input'] %}{{ 'Below is an instruction that describes a task, paired with an input that "
    "provides further context. Write a response that appropriately completes the request.' }}"
    "{% else %}{{ 'Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.' }}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ '\\n\\n### Response:\\n' }}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% elif message['role'] != 'system' %}"
    "{{ '\\n\\n### Instruction:\\n' + (message['instruction'] or message['content']) }}"
    "{% if message['input'] %}{{ '\\n\\n### Input:\\n' + message['input'] }}{% endif %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}"
)

# Llama 2's chat format (Touvron et al. 2023, and its reference code): every turn begins with BOS and ends with EOS.
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
    "{% for message in turns %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endgeneration %}"
    "{% else %}{{ bos_token + '[INST] ' + (system if loop.first else '') + message['content'].strip() + ' [/INST]' }}"
    "{% endif %}{% endfor %}"
)

NONE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}{% endfor %}"
)
