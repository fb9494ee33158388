#!/usr/bin/env python3
"""Writes the seeds of fuzz_chat_template to fuzz/corpus/fuzz_chat_template/.

    python3 fuzz/make_chat_corpus.py

The files are committed; run it when the language grows. The templates are our own: one or more of
each construct.
"""
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / "corpus" / "fuzz_chat_template"

SEEDS = {
    "chatml": "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m['content'] }}<|im_end|>\n"
              "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "zephyr": "{% for m in messages %}\n{% if m.role == 'system' %}\n{{ '<|system|>' + m.content "
              "+ eos_token }}\n{% elif m.role == 'user' %}\n{{ '<|user|>' ~ m.content ~ eos_token }}"
              "\n{% endif %}{% if loop.last and add_generation_prompt %}{{ '<|assistant|>' }}"
              "{% endif %}{% endfor %}",
    "llama2": "{%- set has = messages[0]['role'] == 'system' -%}{% set rest = messages[1:] if has "
              "else messages %}{% for m in rest %}{% if (m.role == 'user') != (loop.index0 % 2 == 0)"
              " %}{{ raise_exception('turns') }}{% endif %}{% if has and loop.first %}<<SYS>>"
              "{{ messages[0].content }}{% endif %}{{ bos_token + '[INST] ' + m.content.strip() + "
              "' [/INST]' + eos_token }}{% endfor %}",
    "llama3": "{% for m in messages %}{% set c = '<|start_header_id|>' + m.role + "
              "'<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' %}"
              "{% if loop.index0 == 0 %}{% set c = bos_token + c %}{% endif %}{{ c }}{% endfor %}",
    "logic": "{% if not (true and 1 < 2) or 3 >= 4 - 1 and none is none %}a{% else %}b{% endif %}"
             "{{ 'x' if messages | length > 2 else \"y\" }}",
    "space": "  {%- if true -%}  a \n {%+ endif +%}\n {#- note -#} \r\n\t{# two\nlines #}\n b {{- '' -}} ",
    "tests": "{% if messages is defined and x is not defined %}{% set x = messages[-1].content %}"
             "{% endif %}{{ x if x is string else '' }}",
    "slices": "{{ messages[:2]|length == 2 and '' or 'n' }}{% for m in messages[-3:-1] %}"
              "{{ loop.index }}{% endfor %}",
    "escapes": "{{ '\\n\\t\\r\\\\\\'\\\"' }}{{ \"%}\" }}",
}


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, text in SEEDS.items():
        (FOLDER / name).write_bytes(text.encode())


if __name__ == "__main__":
    main()
