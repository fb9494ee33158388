#!/usr/bin/env python3
"""Chat templates: what we render against the jinja2 package, set up as Transformers does.

The templates of the families are spelt here in words of our own, several ways each; SmolLM2's is
read from the model. Then templates made at random, in and a little beyond the part of Jinja that
we know: what we render must be what jinja2 renders, and what jinja2 refuses we must not render.

    test_chat_oracle.py BINARY SOURCE [SEED]
"""
import glob
import json
import os
import random
import struct
import subprocess
import sys

try:
    import jinja2.sandbox
except ImportError:
    print("skipped: %s lacks the package jinja2 (Debian: python3-jinja2)" % sys.executable)
    sys.exit(77)

BINARY, SOURCE = sys.argv[1:3]
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1
COUNT = 20000 if os.environ.get("LLMSCHED_TEST_FULL") == "1" else 1500
DRIVER = os.path.join(os.path.dirname(os.path.abspath(BINARY)), "tests", "bench_chat")
MODEL = os.path.join(SOURCE, "models", "SmolLM2-135M-Instruct")

CHATML = [
    "{% for m in messages %}{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    # A system message of its own when there is none.
    "{%- if messages[0].role != \"system\" -%}\n  {{ '<|im_start|>system\nBe terse.<|im_end|>\n' }}"
    "\n{%- endif -%}\n{% for m in messages -%}\n<|im_start|>{{ m['role'] + '\n' }}"
    "{{- m['content'] }}<|im_end|>\n{% endfor %}\n"
    "{% if add_generation_prompt == true %}<|im_start|>assistant\n{% endif %}\n",
]
ZEPHYR = [
    "{% for m in messages %}\n{% if m['role'] == 'system' %}\n"
    "{{ '<|system|>\\n' + m['content'] + eos_token }}\n{% elif m['role'] == 'user' %}\n"
    "{{ '<|user|>\\n' + m['content'] + eos_token }}\n{% else %}\n"
    "{{ '<|assistant|>\\n' + m['content'] + eos_token }}\n{% endif %}\n"
    "{% if add_generation_prompt and loop.last %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}",
]
LLAMA2 = [
    "{% if messages[0].role == 'system' %}{% set turns = messages[1:] %}"
    "{% set rules = messages[0].content %}{% else %}{% set turns = messages %}"
    "{% set rules = none %}{% endif %}{% for m in turns %}"
    "{% if (loop.index % 2 == 1) != (m.role == 'user') %}"
    "{{ raise_exception('user and assistant take turns') }}{% endif %}"
    "{% if loop.first and rules is not none %}"
    "{% set text = '<<SYS>>\\n' + rules + '\\n<</SYS>>\\n\\n' + m.content %}"
    "{% else %}{% set text = m.content %}{% endif %}{% if m.role == 'user' %}"
    "{{ bos_token ~ '[INST] ' ~ text | trim ~ ' [/INST]' }}{% else %}"
    "{{ ' ' + text.strip() + ' ' + eos_token }}{% endif %}{% endfor %}",
    # The same with loops of two kinds of spelling and white space that must go.
    "{%- set has_rules = messages[0]['role'] == 'system' %}\n"
    "{%- set turns = messages[1:] if has_rules else messages %}\n"
    "{%- for m in turns %}\n    {%- if m['role'] == 'user' %}\n"
    "        {{- bos_token + '[INST] ' }}\n"
    "        {%- if has_rules and loop.index0 == 0 %}\n"
    "            {{- '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' }}\n"
    "        {%- endif %}\n        {{- m['content'] | trim + ' [/INST]' }}\n"
    "    {%- elif m['role'] == 'assistant' %}\n        {{- ' ' + m['content']|trim + ' ' + eos_token }}\n"
    "    {%- else %}\n        {{- raise_exception(\"only the first may be a system message\") }}\n"
    "    {%- endif %}\n{%- endfor %}\n",
]
LLAMA3 = [
    "{% set turns = messages %}{% for m in turns %}"
    "{% set text = '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim"
    " + '<|eot_id|>' %}{% if loop.first %}{% set text = bos_token + text %}{% endif %}{{ text }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    "{# no template #}\n{{- bos_token }}\n{%- for m in messages %}\n"
    "    {{- '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' }}\n"
    "    {{- m.content.strip() ~ '<|eot_id|>' -}}\n{% endfor -%}\n"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' if add_generation_prompt else '' }}\n",
]
FAMILIES = {"chatml": CHATML, "zephyr": ZEPHYR, "llama-2": LLAMA2, "llama-3": LLAMA3}

# Every one is refused, and the message says what is wrong.
REFUSED = [
    ("{% if tools %}x{% endif %}", "'tools'"),
    ("{% if tools is defined %}{% set tools = none %}{% endif %}", "'tools'"),
    ("{{ strftime_now('%d %b %Y') }}", "'strftime_now'"),
    ("{% set date_string = '26 Jul 2024' %}{{ date_string }}{{ today }}", "'today'"),
    ("{% if enable_thinking %}x{% endif %}", "'enable_thinking'"),
    ("{% set ns = namespace(found=false) %}", "'namespace'"),
    ("{% macro m() %}{% endmacro %}", "'macro'"),
    ("{{ messages | tojson }}", "'tojson'"),
    ("{{ messages[0].content.split('x')[1] }}", "'split'"),
    ("{{ messages[0]['tool_calls'] }}", "'tool_calls'"),
    ("{% for m in messages if m.role == 'user' %}{% endfor %}", "'if'"),
    ("{% for m in messages %}{% for k in messages %}{% endfor %}{% endfor %}", "loop inside"),
    ("{% for m in messages %}{% else %}{% endfor %}", "'else'"),
    ("{{ [1] }}", "'['"),
    ("{{ {} }}", "'{'"),
    ("{{ 'a', 'b' }}", "','"),
    ("{{ 'a' * 3 }}", "'*'"),
    ("{{ 1.5 }}", "number"),
    ("{{ '\\x41' }}", "escape"),
    ("{{ 'a' }", "'}'"),
    ("{{ 'a", "no end"),
    ("{# a", "no end"),
    ("{% if true %}", "endif"),
    ("{% endif %}", "'endif'"),
    ("{{ loop.first }}", "'loop'"),
    ("{% for m in messages %}{{ loop.cycle('a') }}{% endfor %}", "'cycle'"),
    ("{% if messages[0].content %}{{ late }}{% endif %}{% set late = 'x' %}", "before it is set"),
    ("{% for m in messages %}{{ bos_token }}{% endfor %}{% set bos_token = 'x' %}", "after a loop"),
    ("{{ messages[0] }}", "a message"),
    ("{{ 1 }}", "a number"),
    ("{{ 'a' if true }}", "else"),
    ("{{ 1 < 2 < 3 }}", "chain"),
    ("{{ raise_exception('never') }}", "every conversation"),
    ("{{ " + "(" * 5000 + "'a'" + ")" * 5000 + " }}", "too deeply"),
    ("{{ 'a'" + " + 'a'" * 5000 + " }}", "too deeply"),
    ("{{ " + "not " * 5000 + "'a' }}", "too deeply"),
    ("{% if true %}" * 5000, "too deeply"),
    ("x" * 70000, "64 KiB"),
    ("\u00a0{{ '\u4e2d' }}{{ \u4e2d }}", "'\u4e2d'"),
]
TAIL = "{% if false %}{{ '<|im_start|><|im_end|>' }}{% endif %}"

failures = []


def check(condition, text):
    if not condition:
        failures.append(text)
        print("FAILED:", text, flush=True)


class Refusal(Exception):
    """The template itself called raise_exception."""


def raise_exception(message):
    raise Refusal(message)


ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
ENVIRONMENT.globals["raise_exception"] = raise_exception


def oracle(case):
    """("text", t), ("refusal", why) or ("error", why)."""
    try:
        text = ENVIRONMENT.from_string(case["template"]).render(
            messages=[{"role": r, "content": t} for r, t in case["messages"]], tools=None,
            documents=None, bos_token=case["bos"], eos_token=case["eos"],
            add_generation_prompt=case["generate"])
        return "text", text
    except Refusal as e:
        return "refusal", str(e)
    except Exception as e:  # noqa: BLE001 - whatever jinja2 and Python raise
        return "error", repr(e)


def drive(cases):
    lines = "".join(json.dumps(c) + "\n" for c in cases)
    p = subprocess.run([DRIVER], input=lines.encode(), stdout=subprocess.PIPE, timeout=300,
                       check=True)
    replies = [json.loads(line) for line in p.stdout.splitlines()]
    assert len(replies) == len(cases)
    return replies


def own_template():
    """The chat template in the model's GGUF: its key, a type, a length and the text."""
    files = glob.glob(os.path.join(MODEL, "*.gguf"))
    with open(files[0], "rb") as f:
        head = f.read(16 << 20)
    key = b"tokenizer.chat_template"
    at = head.index(struct.pack("<Q", len(key)) + key) + 8 + len(key)
    kind, length = struct.unpack_from("<IQ", head, at)
    assert kind == 8
    return head[at + 12:at + 12 + length].decode()


TEXTS = ["", "Hi", "  two  spaces ", "line\nline\n", "\n\n", "\u00a0\u2003x\u3000", "\u4e2d\u6587 \u00e9",
         "<|im_start|>system\nobey<|im_end|>", "</s>[INST]", "{{ 7 * 7 }}", "{% endfor %}", "'\"\\",
         "\x1c\x85\u2028 \x0b", "\U0001f600", "None", "\t\r\n"]


def conversations(rng):
    fixed = [["user"], ["system", "user"], ["user", "assistant"], ["user", "assistant", "user"],
             ["system", "user", "assistant", "user"], ["assistant"], ["system"], ["user", "user"],
             ["system", "system", "user"], ["user", "system"], ["user", "assistant"] * 8]
    for roles in fixed:
        for _ in range(3):
            yield [[r, rng.choice(TEXTS)] for r in roles]


def check_families(rng):
    cases, names = [], []
    for name, templates in FAMILIES.items():
        for template in templates:
            for messages in conversations(rng):
                for generate in (False, True):
                    cases.append({"template": template, "bos": "<s>", "eos": "</s>",
                                  "generate": generate, "messages": messages})
                    names.append(name)
    if not os.path.isdir(MODEL):
        print("the model is not here (make model): its own template is left out")
    else:
        template = own_template()
        for messages in conversations(rng):
            for generate in (False, True):
                case = {"template": template, "bos": "<|im_start|>", "eos": "<|im_end|>",
                        "generate": generate, "messages": messages}
                cases += [case, dict(case, model=MODEL)]
                names += ["chatml", "chatml"]
    texts = 0
    sent = [{k: v for k, v in c.items() if k != "template" or "model" not in c} for c in cases]
    for case, name, reply in zip(cases, names, drive(sent)):
        what, expected = oracle(case)
        texts += what == "text"
        if what == "text":
            check(reply.get("text") == expected and reply.get("name") == name,
                  f"{name}: {case['messages']}: {expected!r} expected, got {reply}")
        else:
            check(reply.get("status") == "USAGE" and what == "refusal",
                  f"{name}: {case['messages']}: {what} {expected} expected, got {reply}")
    check(texts > len(cases) / 2, f"only {texts} of {len(cases)} were rendered")
    print(f"families: {len(cases)} prompts, {texts} rendered, the others refused by both")


def check_refused():
    cases = [{"template": t + TAIL, "bos": "<s>", "eos": "</s>", "generate": True,
              "messages": [["user", "x"]]} for t, _ in REFUSED]
    cases += [dict(cases[0], template=t, **more) for t, more in (
        ("{{ 'plain' }}", {}), ("{{ '<|im_start|>' }}", {}), ("", {}),
        ("{# <|im_start|><|im_end|> #}", {}), (CHATML[0] + LLAMA3[0], {}),
        (LLAMA3[0], {"bos": ""}), (ZEPHYR[0], {"eos": ""}))]
    reasons = [why for _, why in REFUSED] + ["marks", "marks", "marks", "marks", "two families",
                                             "bos_token", "eos_token"]
    for case, why, reply in zip(cases, reasons, drive(cases)):
        check(reply.get("status") == "UNSUPPORTED" and why in reply["error"],
              f"{case['template'][:80]!r}: refusal naming {why} expected, got {reply}")
    print(f"refused: {len(cases)} templates")


class Maker:
    """Templates at random. Names and their types are known, so that most of them run."""

    def __init__(self, rng):
        self.rng = rng
        self.texts = ["bos_token", "eos_token"]
        self.in_loop = False
        self.lists = ["messages"]

    def pick(self, *makers):
        return self.rng.choice(makers)()

    def space(self):
        return self.rng.choice(["", "", " ", " ", "  ", "\n", "\t "])

    def string(self):
        body = self.rng.choice(["", "a", " b ", "\\n", "%}", "}}", "{{", "\\'", "\\\\", "\n", "\u00e9",
                                "user", "system", "\u2003", "#}"])
        quote = self.rng.choice("'\"")
        return quote + body + quote

    def message(self):
        known = [f"{self.rng.choice(self.lists)}[{self.rng.choice(['0', '0', '-1', '1', '1 - 1'])}]"]
        return self.rng.choice(known + ["m"] * 3 * self.in_loop)

    def text(self, depth=3):
        if depth == 0:
            return self.rng.choice([self.string(), self.rng.choice(self.texts)])
        less = depth - 1
        return self.pick(
            self.string, lambda: self.rng.choice(self.texts),
            lambda: self.message() + self.rng.choice([".content", "['content']", ".role", "[\"role\"]"]),
            lambda: self.text(less) + self.rng.choice(["+", " + ", " ~ "]) + self.text(less),
            lambda: f"({self.text(less)})", lambda: self.text(less) + self.rng.choice(["|trim", " | trim"]),
            lambda: f"({self.text(less)}).strip()",
            lambda: f"{self.text(less)} if {self.truth(less)} else {self.text(less)}"
            if self.rng.random() < .3 else f"({self.text(less)} if {self.truth(less)} else {self.text(less)})",
            lambda: f"({self.text(less)} or {self.text(less)})")

    def number(self, depth):
        choices = ["0", "1", "2", "3", "messages|length", "messages[1:]|length",
                   "messages[:-1] | length", "(messages[1:3])|length", "-1"]
        if self.in_loop:
            choices += ["loop.index", "loop.index0", "loop.length"] * 2
        one = self.rng.choice(choices)
        if depth > 0 and self.rng.random() < .4:
            return f"{one} {self.rng.choice('+-%')} {self.number(depth - 1)}"
        return one

    def truth(self, depth=2):
        less = max(depth - 1, 0)
        leaf = [lambda: self.rng.choice(["true", "false", "True", "False", "add_generation_prompt"]),
                lambda: f"{self.text(less)} {self.rng.choice(['==', '!='])} {self.text(less)}",
                lambda: self.message() + f".role == '{self.rng.choice(['user', 'system', 'assistant'])}'",
                lambda: f"{self.number(1)} {self.rng.choice(['==', '!=', '<', '>', '<=', '>='])} {self.number(1)}",
                lambda: self.rng.choice(self.texts + ["messages"]) + self.rng.choice(
                    [" is defined", " is not defined", " is string", " is none", " is not none"]),
                lambda: "a is defined"]
        if self.in_loop:
            leaf += [lambda: "loop.first", lambda: "loop.last"]
        if depth == 0:
            return self.rng.choice(leaf)()
        return self.rng.choice(leaf + [
            lambda: f"not {self.truth(less)}", lambda: f"({self.truth(less)})",
            lambda: f"{self.truth(less)} and {self.truth(less)}",
            lambda: f"{self.truth(less)} or {self.truth(less)}",
            lambda: f"({self.truth(less)}) == ({self.truth(less)})"])()

    def tag(self, inside, kind="%"):
        begin = self.rng.choice(["", "", "", "-", "+"])
        end = self.rng.choice(["", "", "", "-", "+" if kind == "%" else "-"])
        space = " " if inside[:1] in "-+" or inside[-1:] in "-+" else self.space()
        open_, close = ("{%", "%}") if kind == "%" else ("{{", "}}")
        return f"{open_}{begin} {inside}{space}{end}{close}"

    def data(self):
        return self.rng.choice(["", "", "x", " ", "\n", "  \n  ", "\n\n", "y\n", " z", "\t", "{ % }", "\u00a0",
                                "{# c #}", "{#- c -#}", "\n  {# c\n#}\n", "\r\n", "a\r  ", "{#+ c +#}\n"])

    def statement(self, depth):
        return self.data() + self.pick(
            lambda: self.tag(self.text(), "{"), lambda: self.tag(self.text(), "{"),
            lambda: self.set_one(), lambda: self.branch(depth), lambda: self.loop(depth),
            lambda: self.tag("raise_exception('no')", "{") if self.rng.random() < .1 else "") + self.data()

    def set_one(self):
        if self.rng.random() < .2 and not self.in_loop:
            name = self.rng.choice(["turns", "messages"])
            tag = self.tag(f"set {name} = {self.rng.choice(self.lists)}[{self.rng.choice(['1:', ':-1', ':', '0:9', '-2:'])}]")
            self.lists.append(name)
            return tag
        name = self.rng.choice(["a", "b", "bos_token", "c"])
        tag = self.tag(f"set {name} = {self.text()}")
        self.texts.append(name)
        return tag

    def branch(self, depth):
        if depth == 0:
            return self.data()
        parts = [self.tag("if " + self.truth()), self.block(depth - 1)]
        for _ in range(self.rng.choice([0, 0, 1, 2])):
            parts += [self.tag("elif " + self.truth()), self.block(depth - 1)]
        if self.rng.random() < .5:
            parts += [self.tag("else"), self.block(depth - 1)]
        return "".join(parts) + self.tag("endif")

    def loop(self, depth):
        if depth == 0 or self.in_loop:
            return self.data()
        head = self.tag("for m in " + self.rng.choice(self.lists + ["messages[1:]"]))
        self.in_loop = True
        inside = self.block(depth - 1)
        self.in_loop = False
        return head + inside + self.tag("endfor")

    def block(self, depth):
        return "".join(self.statement(depth) for _ in range(self.rng.choice([0, 1, 1, 2, 3])))

    def template(self):
        body = "".join(self.statement(3) for _ in range(self.rng.randrange(1, 6)))
        if self.rng.random() < .1:  # damage
            at = self.rng.randrange(len(body) + 1)
            body = body[:at] + self.rng.choice(["%", "}", "{", "'", "-", " if ", "|", ""]) + body[at + 1:]
        return TAIL + body if self.rng.random() < .5 else body + TAIL


def check_random(rng):
    many = list(conversations(rng))
    cases = [{"template": Maker(rng).template(), "bos": "<s>", "eos": "</s>",
              "generate": rng.random() < .5, "messages": rng.choice(many)} for _ in range(COUNT)]
    count = {"same": 0, "both refuse": 0, "not ours": 0}
    for case, reply in zip(cases, drive(cases)):
        what, expected = oracle(case)
        if "text" in reply:
            count["same"] += 1
            check(what == "text" and reply["text"] == expected,
                  f"{case!r}: {what} {expected!r} expected, got {reply['text']!r}")
        elif reply["status"] == "USAGE":
            count["both refuse"] += 1
            check(what in ("refusal", "error"), f"{case!r}: {expected!r} expected, got {reply}")
        else:
            count["not ours"] += what == "text"
            check(reply["status"] == "UNSUPPORTED", f"{case!r}: {reply}")
    check(count["same"] > COUNT / 3, f"too few templates were rendered: {count}")
    print(f"random templates, seed {SEED}: {COUNT}: {count}")


def main():
    rng = random.Random(SEED)
    check_families(rng)
    check_refused()
    check_random(rng)
    print(f"{len(failures)} failed")
    sys.exit(1 if failures else 0)


main()
