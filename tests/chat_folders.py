"""Chat templates in the forms that models have, and tiny causal models with entries for them."""

from __future__ import annotations

import json
from pathlib import Path

from causal_folders import make_model, write_tokenizer

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "{{ '<|im_start|>system\n你有用。<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{- bos_token }}\n{%- if not date_string is defined %}\n"
    "    {%- if strftime_now is defined %}{% set date_string = strftime_now('%Y') %}\n"
    "    {%- else %}{% set date_string = '二' %}{% endif %}\n{%- endif %}\n"
    "{{- '<|head|>系统<|tail|>\n\n' + date_string + '<|eot|>' }}\n"
    "{%- for message in messages %}\n"
    "    {{- '<|head|>' + message['role'] + '<|tail|>\n\n'+ message['content'] | trim }}"
    "{{- '<|eot|>' }}\n{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|head|>assistant<|tail|>\n\n' }}{%- endif %}"
)
GLM = (
    "[gMASK]<sop>{% for item in messages %}"
    "{% if item.role == 'user' %}<|user|>\n{{ item.content }}"
    "{% elif item.role == 'assistant' %}<|assistant|>\n{% generation %}{{ item.content }}"
    "{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
INST = (
    "{% for message in messages %}{% if message.role == 'user' %}"
    "{{ bos_token + '[令] ' + message['content'].strip() + ' [完]' }}"
    "{% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
TEMPLATES = {"chatml": CHATML, "llama": LLAMA, "glm": GLM, "inst": INST}
MARKS = (
    *("<|im_start|>", "<|im_end|>", "<|head|>", "<|tail|>", "<|eot|>"),
    *("[gMASK]", "<sop>", "<|user|>", "<|assistant|>"),
)
ENDS = {"chatml": "<|im_end|>", "llama": "<|eot|>", "glm": "</s>", "inst": "</s>"}


def add_marks(folder: Path) -> int:
    """Give a tokenizer the marks of all templates as special entries; return how many it has."""
    file = folder / "tokenizer.json"
    values = json.loads(file.read_text())
    vocab = values["model"]["vocab"]
    for text in "assistantuseryem令完[]系统你有用。二":
        vocab.setdefault(text, len(vocab))
    first = values["added_tokens"][0]
    n = len(vocab)
    values["added_tokens"] += [
        {**first, "id": n + k, "content": mark} for k, mark in enumerate(MARKS)
    ]
    file.write_text(json.dumps(values, ensure_ascii=False))
    return n + len(MARKS)


def chat_folder(folder: Path, template: str | None = CHATML) -> Path:
    """A random Llama, whose tokenizer has a template in its config."""
    folder.mkdir(parents=True)
    write_tokenizer(folder, bos=True)
    rows = add_marks(folder)
    make_model("llama", rows).save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if template is not None:
        file = folder / "tokenizer_config.json"
        about = json.loads(file.read_text())
        file.write_text(json.dumps({**about, "chat_template": template}))
    return folder
