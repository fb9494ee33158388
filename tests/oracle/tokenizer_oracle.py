#!/usr/bin/env python3
"""Compare the tokenizer with the `tokenizers` library, id by id, and make the golden files.

usage:
  tokenizer_oracle.py compare --driver build/tests/bench_tokenize [--classes] [--gguf FILE ...] [--bytes N]
  tokenizer_oracle.py golden --out tests/data/tokenizers [--gguf FILE]

Needs the package `tokenizers`; --gguf also `gguf`, and a file of kind gpt2 or llama. `compare`
trains small tokenizers of many shapes on text made here, encodes N bytes (default 1.2 million) of
text in many scripts, random Unicode and invalid UTF-8 with the library and with the driver, and
compares ids and decoded text. It exits 1 at the first difference of a variant, showing the text.
The library's normalizers carry tables of Unicode 9; texts that they normalise otherwise than
Python's newer tables do are left out for those variants, and counted.
`golden` writes small tokenizers, texts and the library's ids, for `make test` without Python.
"""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers,
                        pre_tokenizers, processors, trainers)

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")

# First and last code point of the scripts that words are made of.
SCRIPTS = [(0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x370, 0x3FF), (0x400, 0x52F),
           (0x531, 0x587), (0x5D0, 0x5EA), (0x620, 0x6FF), (0x700, 0x74F), (0x900, 0x97F),
           (0x980, 0x9FE), (0xA00, 0xA76), (0xB80, 0xBFA), (0xC00, 0xC7F), (0xD00, 0xD7F),
           (0xE01, 0xE5B), (0xE80, 0xEDF), (0xF00, 0xFDA), (0x1000, 0x109F), (0x10A0, 0x10FF),
           (0x1100, 0x11FF), (0x1200, 0x137C), (0x13A0, 0x13FD), (0x1780, 0x17F9),
           (0x1820, 0x18AA), (0x1E00, 0x1FFE), (0x2C00, 0x2CFF), (0x3041, 0x30FF),
           (0x3105, 0x312F), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xA000, 0xA48C),
           (0xAC00, 0xD7A3), (0xFB00, 0xFB06), (0xFB50, 0xFDFB), (0xFF01, 0xFFEE),
           (0x10300, 0x1031F), (0x10400, 0x1044F), (0x12000, 0x1236E), (0x1D400, 0x1D7FF),
           (0x1E900, 0x1E943), (0x20000, 0x2A6D6)]
SPACES = [" ", " ", " ", " ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", " \n ", "\u00a0", "\u2003",
          "\u3000", "\u2028", "\x0b", "\x0c", "\x85", "\u200b", "\u180e", "\u1680"]
ENGLISH = ("the of and to in a is that for it was on are as with his they at be this have from or "
           "one had by word but not what all were we when your can said there use an each which "
           "she do how their if will up other about out many then them these so some her would "
           "make like him into time has look two more write go see number no way could people my "
           "than first water been call who oil its now find long down day did get come made may "
           "part I'm you're he'll it's don't we've I'd Hello World scheduler batching latency"
           ).split()
CODE = ["int main(void)\n{\n    return 0;\n}\n", "for (size_t i = 0; i < n; i++) {\n\tx[i] += 1;\n",
        "def f(x):\n    return [y**2 for y in x if y != 3.14e-10]\n", "SELECT * FROM t WHERE a>=10;",
        "<html><body class=\"a\">&nbsp;</body></html>", "#include <stdio.h>\r\n", "a->b::c(d)[e]{f}",
        "$x = @{y}; # comment ~~~ `code` \\n %s %d\n", "----====++++", "https://a.b/c?d=e&f=%20g#h"]
EMOJI = ["\U0001F600", "\U0001F468\u200D\U0001F469\u200D\U0001F467", "\U0001F1E9\U0001F1EA",
         "\u2764\uFE0F", "\U0001F44D\U0001F3FD", "\u2705", "\U0001F999", "1\uFE0F\u20E3"]
QUOTES = ["'s", "'S", "'t", "'Re", "'VE", "'m", "'ll", "'d", "\u2019s", "''", "'\u017f", "'LL"]
MARKS = [chr(c) for c in range(0x300, 0x370)] + ["\u0591", "\u064b", "\u0f71", "\u0f72", "\u3099",
                                                 "\u1dc0", "\u20d0", "\u1ab0"]
SPECIALS = ["<s>", "</s>", "<unk>", "<|endoftext|>", "[PICK]", "yesterday", "<mask>", "New York",
            "[Norm]"]


def assigned(c):
    return unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")


def word(r):
    lo, hi = r.choice(SCRIPTS)
    chars = []
    while len(chars) < r.randint(1, 9):
        c = r.randint(lo, hi)
        if assigned(c):
            chars.append(chr(c))
    return "".join(chars)


def number(r):
    return r.choice([str(r.randint(0, 10 ** r.randint(1, 12))), "%.4f" % r.uniform(-9, 9),
                     "%d.%d.%d" % (r.randint(0, 9), r.randint(0, 99), r.randint(0, 999)),
                     "".join(chr(r.choice([0x660, 0x966, 0xFF10, 0x1D7CE]) + r.randint(0, 9))
                             for _ in range(r.randint(1, 6))),
                     r.choice("\u00bd\u00b2\u2167\u3289\u2460\u0bf0")])


def wild(r):
    """Any scalar value that Unicode 14 has assigned, or not at all (private use, too)."""
    while True:
        c = r.randint(0, 0x10FFFF) if r.random() < 0.5 else r.randint(0, 0x3FFF)
        if assigned(c) and c != 0 or 0xE000 <= c <= 0xF8FF:
            return chr(c)


def fragment(r):
    k = r.random()
    if k < 0.30:
        return r.choice(ENGLISH)
    if k < 0.55:
        return word(r)
    if k < 0.63:
        return number(r)
    if k < 0.68:
        return r.choice(CODE)
    if k < 0.73:
        return r.choice(EMOJI) * r.randint(1, 3)
    if k < 0.78:
        return r.choice(ENGLISH) + r.choice(QUOTES) + r.choice(["", " ", "x"])
    if k < 0.83:
        return r.choice("aeiouAEOU\u03b1\u0915\uac00\u1100") + "".join(
            r.choice(MARKS) for _ in range(r.randint(1, 6)))
    if k < 0.87:
        return "".join(r.choice(SPACES) for _ in range(r.randint(1, 8)))
    if k < 0.91:
        return "".join(r.choice("!?.,;:-_=+*/\\|()[]{}<>@#$%^&~`\"'\u2026\u2014\u00a1\u3002\u2581")
                       for _ in range(r.randint(1, 6)))
    if k < 0.94:
        return r.choice(["", " ", "  "]) + r.choice(SPECIALS) + r.choice(["", " ", "\t", "x"])
    if k < 0.97:
        return "".join(wild(r) for _ in range(r.randint(1, 12)))
    return r.choice("ab \u4e2d9-") * r.randint(10, 400)


def text(r):
    out = []
    for _ in range(r.choice([1, 2, 3, 8, 20, 60, 200])):
        out.append(fragment(r))
        if r.random() < 0.7:
            out.append(r.choice(SPACES[:10]))
    return "".join(out)


def texts(seed, n_bytes):
    r = random.Random(seed)
    out = ["", " ", "  ", "\n", "a", " a", "a ", "\u2581", "\u2581a", "\ufeffx", "\x7f", "\u0130I"]
    out += [s for s in SPECIALS] + [" " + s + " " for s in SPECIALS]
    total = 0
    while total < n_bytes:
        t = text(r).encode()
        if r.random() < 0.1:  # break it: U+FFFD must come out where Python puts it
            b = bytearray(t)
            for _ in range(r.randint(1, 4)):
                if b:
                    b[r.randrange(len(b))] = r.randrange(256)
            t = bytes(b[:r.randint(0, len(b))])
        out.append(t)
        total += len(t)
    return [t if isinstance(t, bytes) else t.encode() for t in out]


def clean_corpus(seed, n_bytes):
    return [t.decode("utf-8", "replace") for t in texts(seed, n_bytes)]


# --- variants ----------------------------------------------------------------------------------

def special(content, **kw):
    return AddedToken(content, special=True, normalized=False, **kw)


def train_byte_level(vocab, corpus, pre, **kw):
    tok = Tokenizer(models.BPE(**kw))
    tok.pre_tokenizer = pre
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tok


def train_fallback(vocab, corpus, **kw):
    """A BPE over U+2581 words with byte tokens that, as in Llama's file, are no added tokens."""
    base = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, **kw))
    base.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_ = ["<0x%02X>" % b for b in range(256)]
    base.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, limit_alphabet=300,
        special_tokens=["<unk>", "<s>", "</s>"] + bytes_))
    j = json.loads(base.to_str())
    j["added_tokens"] = [a for a in j["added_tokens"] if not a["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(j))


def template(bos, eos, tok):
    single = ("<s> " if bos else "") + "$A" + (" </s>" if eos else "")
    ids = [("<s>", tok.token_to_id("<s>")), ("</s>", tok.token_to_id("</s>"))]
    return processors.TemplateProcessing(single=single, pair="$A $B:1", special_tokens=ids)


def build_variants(vocab, corpus):
    """name -> Tokenizer"""
    byte_level = pre_tokenizers.ByteLevel
    out = {}

    tok = train_byte_level(vocab, corpus, byte_level(add_prefix_space=False))
    tok.post_processor = processors.ByteLevel(trim_offsets=False)
    tok.add_special_tokens([special("<|endoftext|>")])
    out["gpt2"] = tok

    tok = train_byte_level(vocab, corpus, byte_level(add_prefix_space=True))
    tok.normalizer = normalizers.NFC()
    tok.post_processor = processors.Sequence([processors.ByteLevel(), template(True, True, tok)])
    tok.add_tokens([AddedToken("[PICK]", lstrip=True), AddedToken("yesterday", single_word=True),
                    AddedToken("New York", rstrip=True), special("<mask>", lstrip=True)])
    out["prefix_nfc_added"] = tok

    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LLAMA3), "isolated"),
                                   byte_level(add_prefix_space=False, use_regex=False)])
    tok = train_byte_level(vocab, corpus, pre, ignore_merges=True)
    tok.post_processor = template(True, False, tok)
    out["llama3"] = tok

    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   byte_level(add_prefix_space=False)])
    out["smollm"] = train_byte_level(vocab, corpus, pre)

    tok = train_fallback(vocab, corpus, fuse_unk=True)
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                           normalizers.Replace(" ", "\u2581")])
    tok.pre_tokenizer = None
    tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                     decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.post_processor = template(True, False, tok)
    out["llama2"] = tok

    tok = train_fallback(vocab, corpus)
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tok.decoder = decoders.Sequence([decoders.Metaspace(prepend_scheme="first"),
                                     decoders.ByteFallback(), decoders.Fuse()])
    tok.add_special_tokens([special("<mask>", rstrip=True)])
    out["metaspace_first"] = tok

    tok = train_fallback(vocab, corpus)
    tok.model.byte_fallback = False
    tok.normalizer = normalizers.NFKC()
    tok.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    tok.decoder = decoders.Metaspace()
    out["metaspace_unk"] = tok

    tok = Tokenizer(models.BPE(unk_token="<unk>", continuing_subword_prefix="##", fuse_unk=True))
    tok.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase(),
                                           normalizers.Strip()])
    tok.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(),
                                                 pre_tokenizers.Punctuation("contiguous"),
                                                 pre_tokenizers.Digits()])
    tok.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, limit_alphabet=300, continuing_subword_prefix="##",
        special_tokens=["<unk>", "<s>", "</s>"]))
    tok.add_tokens([AddedToken("[Norm]", normalized=True), AddedToken("YESTERDAY")])
    out["subword_prefix"] = tok

    tok = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tok.normalizer = normalizers.Sequence([normalizers.NFKD(),
                                           normalizers.Replace(Regex(r"\p{M}+|\d{2}"), "-")])
    tok.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok.train_from_iterator(corpus, trainers.BpeTrainer(
        vocab_size=vocab, show_progress=False, limit_alphabet=300, end_of_word_suffix="</w>",
        special_tokens=["<unk>", "<s>", "</s>"]))
    out["word_suffix"] = tok

    steps = [pre_tokenizers.Split(Regex(r"[aeiou]"), "merged_with_previous"),
             pre_tokenizers.Split(Regex(r"\s+"), "merged_with_next"),
             pre_tokenizers.Split("-", "removed"),
             pre_tokenizers.Split(Regex(r"\w{1,7}"), "contiguous", invert=True),
             pre_tokenizers.Split(Regex(r"^\p{Lu}|\p{Han}+?$|x*"), "isolated"),
             pre_tokenizers.Split(".", "merged_with_next", invert=True),
             byte_level(add_prefix_space=False, use_regex=False)]
    tok = train_byte_level(vocab, corpus, byte_level(add_prefix_space=False))
    tok.pre_tokenizer = pre_tokenizers.Sequence(steps)
    out["splits"] = tok

    tok = train_byte_level(vocab, corpus, byte_level(add_prefix_space=False))
    tok.pre_tokenizer = None
    tok.normalizer = normalizers.ByteLevel()
    tok.add_tokens([AddedToken("New York", normalized=True)])
    out["normalizer_byte_level"] = tok
    return out


def from_gguf(path):
    """The library's tokenizer for a GGUF vocabulary of kind gpt2, gpt-2 or smollm splits."""
    import gguf
    fields = gguf.GGUFReader(path).fields
    get = lambda k: fields["tokenizer.ggml." + k].contents()
    tokens, types = get("tokens"), get("token_type")
    control = [special(t) for t, k in zip(tokens, types) if k in (2, 3)]
    if get("model") == "gpt2":
        merges = [tuple(m.split(" ")) for m in get("merges")]
        tok = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, merges))
        steps = [pre_tokenizers.ByteLevel(add_prefix_space=False)]
        if get("pre") == "smollm":
            steps.insert(0, pre_tokenizers.Digits(individual_digits=True))
        tok.pre_tokenizer = pre_tokenizers.Sequence(steps)
        tok.decoder = decoders.ByteLevel()
    else:
        vocab = {t: i for i, t in enumerate(tokens)}
        scores = get("scores")
        merges = []
        for t, i in vocab.items():  # every way to make a token of two, best result first
            if types[i] == 1:
                merges += [(-scores[i], t[:k], t[k:]) for k in range(1, len(t))
                           if t[:k] in vocab and t[k:] in vocab]
        merges.sort(key=lambda m: m[0])
        tok = Tokenizer(models.BPE(vocab, [m[1:] for m in merges], unk_token="<unk>",
                                   byte_fallback=True, fuse_unk=True))
        tok.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"),
                                               normalizers.Replace(" ", "\u2581")])
        tok.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(),
                                         decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tok.add_special_tokens(control)
    if "tokenizer.ggml.add_bos_token" in fields and get("add_bos_token"):
        bos = get("bos_token_id")
        tok.post_processor = processors.TemplateProcessing(
            single="B $A", pair="$A $B:1", special_tokens=[("B", bos)])
    return tok


# --- comparison --------------------------------------------------------------------------------

def drive(driver, model, mode, records):
    data = b"".join(struct.pack("<I", len(t)) + t for t in records)
    done = subprocess.run([driver, model, mode], input=data, capture_output=True, check=False)
    if done.returncode != 0:
        sys.exit("%s %s: %s" % (model, mode, done.stderr.decode()))
    return done.stdout, done.stderr.decode().strip()


def compare_ids(name, driver, model, tok, samples, add_special):
    mode = "encode-special" if add_special else "encode"
    out, note = drive(driver, model, mode, samples)
    lines = out.decode().split("\n")
    assert len(lines) == len(samples) + 1
    decoded = [t.decode("utf-8", "replace") for t in samples]
    wanted = tok.encode_batch(decoded, add_special_tokens=add_special)
    total = 0
    for i, line in enumerate(lines[:-1]):
        got = [int(x) for x in line.split()]
        total += len(got)
        if got != wanted[i].ids:
            at = next((k for k, (a, b) in enumerate(zip(got, wanted[i].ids)) if a != b),
                      min(len(got), len(wanted[i].ids)))
            print("%s: text %d differs at token %d:\n  text   %r\n  got    %s\n  wanted %s" %
                  (name, i, at, decoded[i][:300], got[at:at + 10], wanted[i].tokens[at:at + 10]))
            return None
    return [w.ids for w in wanted], total, note


def read_records(data):
    out = []
    at = 0
    while at < len(data):
        n = struct.unpack_from("<I", data, at)[0]
        out.append(data[at + 4:at + 4 + n])
        at += 4 + n
    return out


def compare_text(name, driver, model, tok, ids, byte_fallback):
    r = random.Random(7)
    n = tok.get_vocab_size()
    ids = ids + [[r.randrange(n) for _ in range(r.randint(1, 40))] for _ in range(2000)]
    packed = [struct.pack("<%di" % len(i), *i) for i in ids]
    for mode, skip in (("decode", True), ("decode-special", False)):
        got = read_records(drive(driver, model, mode, packed)[0])
        wanted = tok.decode_batch(ids, skip_special_tokens=skip)
        for i, (g, w) in enumerate(zip(got, wanted)):
            if byte_fallback and "\ufffd" in w:
                continue  # the library drops whole runs of bytes there; see tok_decode.c
            if g.decode() != w:
                print("%s: %s of %s differs:\n  got    %r\n  wanted %r" %
                      (name, mode, ids[i][:20], g.decode()[:200], w[:200]))
                return False
    return True


def same_tables(tok, samples):
    """The texts that the library's old tables (normal forms, punctuation) read as Python's do."""
    form = next((f for f in ("NFKC", "NFKD", "NFC", "NFD") if f in str(tok.normalizer)), None)
    theirs = getattr(normalizers, form)() if form else None
    odd = set()
    if "Punctuation" in str(tok.pre_tokenizer):
        removed = pre_tokenizers.Punctuation("removed")
        odd = {chr(c) for c in range(0x80, 0x110000) if unicodedata.category(chr(c))[0] == "P"
               and removed.pre_tokenize_str(chr(c))}
    out = []
    for t in samples:
        s = t.decode("utf-8", "replace")
        if form and theirs.normalize_str(s) != unicodedata.normalize(form, s):
            continue
        if not odd.intersection(s):
            out.append(t)
    return out


CLASSES = [r"\w", r"\W", r"\s", r"\S", r"\d", r"\D", r"[^\s\p{L}\p{N}]", r"\p{L}", r"\p{Lu}", r"\p{M}",
           r"\p{N}", r"\p{Nd}", r"\p{P}", r"\p{S}", r"\p{Han}", r"\p{Greek}", r"\p{Cyrillic}",
           r"\p{^Latin}", r"\P{Arabic}", r"(?i:[k\u00e5s])", r"."]


def compare_classes(driver, folder):
    """Every code point against every class that real split patterns use."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    chars = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    good = True
    newer = set()
    for pattern in CLASSES:
        tok = Tokenizer(models.BPE({a: i for i, a in enumerate(alphabet)}, []))
        tok.pre_tokenizer = pre_tokenizers.Sequence([
            pre_tokenizers.Split(Regex(pattern), "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
        path = os.path.join(folder, "class.json")
        tok.save(path)
        lines = drive(driver, path, "encode", [c.encode() for c in chars])[0].split(b"\n")
        wanted = tok.encode_batch(chars, add_special_tokens=False)
        wrong = [c for c, line, w in zip(chars, lines, wanted) if (line == b"") != (not w.ids)]
        newer.update(c for c in wrong if not assigned(ord(c)))
        wrong = [c for c in wrong if assigned(ord(c))]
        if wrong:
            good = False
            print("class %s differs for %d characters: %s" %
                  (pattern, len(wrong), " ".join("U+%04X" % ord(c) for c in wrong[:10])))
    print("classes                %s: %d classes x %d code points (%d of them newer than Unicode "
          "%s and read otherwise)" % ("ok" if good else "BAD", len(CLASSES), len(chars), len(newer),
                                      unicodedata.unidata_version))
    return good


def compare_one(name, driver, model, tok, samples):
    n = len(samples)
    samples = same_tables(tok, samples)
    plain = compare_ids(name, driver, model, tok, samples, False)
    with_special = plain and compare_ids(name, driver, model, tok, samples[:400], True)
    if not with_special:
        return False
    fallback = "ByteFallback" in tok.to_str()[-2000000:] and "ByteFallback" in str(tok.decoder)
    if not compare_text(name, driver, model, tok, plain[0], fallback):
        return False
    print("%-22s ok: %d texts (%d left out), %d bytes, %d ids equal; text equal (%s)" %
          (name, len(samples), n - len(samples), sum(map(len, samples)), plain[1], plain[2]))
    return True


def compare(args):
    samples = texts(1, args.bytes)
    print("tokenizers %s, Unicode of the texts %s" %
          (tokenizers.__version__, unicodedata.unidata_version))
    good = True
    with tempfile.TemporaryDirectory() as folder:
        if args.classes:
            good = compare_classes(args.driver, folder)
        for name, tok in build_variants(3000, clean_corpus(2, 400000)).items():
            path = os.path.join(folder, name + ".json")
            tok.save(path)
            good = compare_one(name, args.driver, path, Tokenizer.from_file(path), samples) and good
    for path in args.gguf:
        good = compare_one(os.path.basename(path)[:22], args.driver, path, from_gguf(path),
                           samples) and good
    sys.exit(0 if good else 1)


# --- golden files ------------------------------------------------------------------------------

def golden(args):
    """NAME.json (the tokenizer) and NAME.golden.json {command, texts: [{text, ids, decoded}]}."""
    samples = [t for t in clean_corpus(3, 90000) if len(t.encode()) < 300][:75]
    os.makedirs(args.out, exist_ok=True)
    sets = {}
    for name, tok in build_variants(700, clean_corpus(2, 100000)).items():
        tok.save(os.path.join(args.out, name + ".json"), pretty=False)
        sets[name] = Tokenizer.from_file(os.path.join(args.out, name + ".json"))
    for path in args.gguf:
        sets["smollm2_real"] = from_gguf(path)
    doc = {"command": "tests/oracle/tokenizer_oracle.py " + " ".join(
               [os.path.basename(a) if "/" in a and not a.startswith("tests/") else a
                for a in sys.argv[1:]]),
           "tokenizers": tokenizers.__version__, "texts": samples, "ids": {}, "special_ids": {}}
    for name, tok in sets.items():
        doc["ids"][name] = [tok.encode(t, add_special_tokens=False).ids for t in samples]
        doc["special_ids"][name] = tok.encode(samples[-1]).ids
    with open(os.path.join(args.out, "golden.json"), "w", encoding="utf-8") as f:
        json.dump(doc, f, ensure_ascii=True, separators=(",", ":"))
        f.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(required=True)
    c = sub.add_parser("compare")
    c.add_argument("--driver", required=True)
    c.add_argument("--gguf", nargs="*", default=[])
    c.add_argument("--bytes", type=int, default=1200000)
    c.add_argument("--classes", action="store_true",
                   help="also every code point against every character class (a minute or two)")
    c.set_defaults(run=compare)
    g = sub.add_parser("golden")
    g.add_argument("--out", required=True)
    g.add_argument("--gguf", nargs="*", default=[])
    g.set_defaults(run=golden)
    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
