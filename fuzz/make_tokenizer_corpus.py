#!/usr/bin/env python3
"""Writes the seeds of fuzz_tokenizer_json to fuzz/corpus/fuzz_tokenizer_json/.

    python3 fuzz/make_tokenizer_corpus.py

The files are committed; run it when a component is added. Each seed is a tiny tokenizer that loads.
"""
import json
import pathlib

FOLDER = pathlib.Path(__file__).resolve().parent / "corpus" / "fuzz_tokenizer_json"
GPT2 = r"'s|'t| ?\p{L}+| ?\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+(?!\S)|\s+"
BYTES = {"<0x%02X>" % b: 10 + b for b in (0x0A, 0x41, 0xC3, 0xA9, 0xE2, 0x96, 0x81)}
VOCAB = {"<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5, "\u2581": 6, "\u0120": 7}


def split(pattern, behavior, invert=False, kind="Regex"):
    return {"type": "Split", "pattern": {kind: pattern}, "behavior": behavior, "invert": invert}


def sequence(key, *members):
    return {"type": "Sequence", key: list(members)}


def write(name, vocab=None, merges=(["a", "b"],), model=None, **parts):
    doc = {"version": "1.0", "added_tokens": [
        {"id": 1, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}]}
    doc.update(parts)
    doc["model"] = {"type": "BPE", "unk_token": "<unk>", "vocab": vocab or VOCAB,
                    "merges": list(merges), **(model or {})}
    (FOLDER / name).write_text(json.dumps(doc, separators=(",", ":")))


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    mark = {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
    space = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    meta = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": True}
    template = {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
                           {"Sequence": {"id": "A", "type_id": 0}}],
                "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    write("plain", merges=["a b"])
    write("byte_level", pre_tokenizer=level, decoder=level, post_processor=level)
    write("llama3", pre_tokenizer=sequence("pretokenizers", split(GPT2, "Isolated"),
                                           dict(level, use_regex=False)),
          decoder=level, post_processor=sequence("processors", level, template),
          model={"ignore_merges": True})
    write("llama2", vocab={**VOCAB, **BYTES},
          normalizer=sequence("normalizers", {"type": "Prepend", "prepend": "\u2581"}, mark),
          decoder=sequence("decoders", space, {"type": "ByteFallback"}, {"type": "Fuse"},
                           {"type": "Strip", "content": " ", "start": 1, "stop": 0}),
          model={"byte_fallback": True, "fuse_unk": True})
    write("metaspace", pre_tokenizer=meta, decoder=meta)
    write("forms", normalizer=sequence("normalizers", *({"type": k} for k in (
        "NFC", "NFD", "NFKC", "NFKD", "Lowercase")), {"type": "Strip", "strip_left": True,
                                                     "strip_right": True}, {"type": "ByteLevel"}))
    write("splits", pre_tokenizer=sequence(
        "pretokenizers", split("[aeiou]", "MergedWithPrevious"), split(r"\s+", "MergedWithNext"),
        split("-", "Removed", kind="String"), split(r"\w{1,7}", "Contiguous", True),
        {"type": "Digits", "individual_digits": True}, {"type": "Whitespace"},
        {"type": "WhitespaceSplit"}, {"type": "Punctuation", "behavior": "Isolated"}))
    write("affixes", vocab={"<unk>": 0, "<s>": 1, "a": 2, "##b": 3, "ab": 4, "a</w>": 5},
          merges=["a ##b"], model={"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>"})
    write("added", normalizer={"type": "Lowercase"}, added_tokens=[
        {"id": 20 + i, "content": c, "special": False, "normalized": i % 2 == 0, "lstrip": i == 1,
         "rstrip": i == 2, "single_word": i == 3}
        for i, c in enumerate(["X", "yz", "Hello", "it"])])
    write("roberta", post_processor={"type": "RobertaProcessing", "sep": ["</s>", 2],
                                     "cls": ["<s>", 1], "trim_offsets": True,
                                     "add_prefix_space": False})


if __name__ == "__main__":
    main()
