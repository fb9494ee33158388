#!/usr/bin/env python3
"""grep_code.py PATTERN FILE...: prints the code lines that match, comments and literals cut out.

A line with the comment "lint: allow - REASON" is let through.
"""
import re
import sys

PIECES = re.compile(r"""(/\*.*?\*/|//[^\n]*)|("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')""", re.S)


def blank(match):
    return re.sub(r"[^\n]", " ", match.group(0))


pattern = re.compile(sys.argv[1])
found = False
for path in sys.argv[2:]:
    text = open(path, encoding="utf-8").read()
    lines = text.split("\n")
    for number, code in enumerate(PIECES.sub(blank, text).split("\n")):
        if pattern.search(code) and "lint: allow - " not in lines[number]:
            print(f"{path}:{number + 1}: {lines[number].strip()}")
            found = True
sys.exit(0 if found else 1)
