/*
 * jinja_int.h - the part of Jinja that chat templates of our families are written in. Private to
 * src/model/jinja_*.c and chat_template.c.
 *
 *   jinja_lex.c     text -> tokens, white space as Transformers sets it (trim_blocks,
 * lstrip_blocks) jinja_parse.c   tokens -> tree jinja_run.c     tree + messages -> text
 *
 * The language: text, {{ }}, if/elif/else, for over the messages, set, and the expressions named
 * below, by the rules of Python. Whatever else there is in a template (tools, dates, macros, other
 * filters, any name that is not given here or set by the template) is refused with its place: what
 * is accepted gives byte for byte what Jinja gives. Source: pallets/jinja, src/jinja2/lexer.py and
 * parser.py; huggingface/transformers, utils/chat_template_utils.py.
 */
#ifndef LLMSCHED_MODEL_JINJA_INT_H
#define LLMSCHED_MODEL_JINJA_INT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "model/chat_template.h"

#define JINJA_MAX_BYTES      ((size_t)64 << 10) /* a template; the longest published are 16 KiB */
#define JINJA_MAX_DEPTH      100u               /* of the tree: bounds recursion */
#define JINJA_MAX_NAMES      64u                /* that a template may set */
#define JINJA_MAX_DIGITS     9u                 /* of a number in a template */
#define JINJA_MAX_TEXT_BYTES ((size_t)64 << 20) /* of a prompt and of all parts of one message */

enum jinja_token_kind {
    JINJA_TEXT,
    JINJA_BLOCK_BEGIN,
    JINJA_BLOCK_END,
    JINJA_PRINT_BEGIN,
    JINJA_PRINT_END,
    JINJA_NAME,
    JINJA_STRING, /* escapes resolved */
    JINJA_NUMBER,
    JINJA_OPERATOR, /* one or two characters */
    JINJA_END
};

struct jinja_token {
    enum jinja_token_kind kind;
    const char *text; /* in the arena */
    size_t len;
    size_t at; /* byte in the template, its line ends made LF */
    int64_t number;
};

struct jinja_tokens {
    struct jinja_token *items; /* owner: the caller (mem_free); the last is JINJA_END */
    size_t n;
    size_t capacity;
};

/* Texts go to the arena. Errors: UNSUPPORTED, NO_MEMORY. */
enum status jinja_lex(const char *text, size_t len, struct arena *arena, struct jinja_tokens *out,
                      struct error *err) MUST_USE;

enum jinja_kind {
    /* statements */
    NODE_TEXT,  /* text */
    NODE_PRINT, /* a */
    NODE_IF,    /* if a (NULL: always) then b, else the branch c, which is a NODE_IF too */
    NODE_FOR,   /* for name in a: b */
    NODE_SET,   /* name = a */
    /* expressions */
    NODE_STRING,  /* text */
    NODE_NUMBER,  /* number */
    NODE_BOOL,    /* number */
    NODE_NONE,    /* none */
    NODE_NAME,    /* name */
    NODE_ROLE,    /* a.role, a['role'] */
    NODE_CONTENT, /* a.content */
    NODE_INDEX,   /* a[b] */
    NODE_SLICE,   /* a[b:c], either may be NULL */
    NODE_LOOP_FIRST,
    NODE_LOOP_LAST,
    NODE_LOOP_INDEX,
    NODE_LOOP_INDEX0,
    NODE_LOOP_LENGTH,
    NODE_TRIM,   /* a | trim, a.strip() */
    NODE_LENGTH, /* a | length */
    NODE_NEGATE,
    NODE_ADD, /* a + b */
    NODE_SUBTRACT,
    NODE_MODULO,
    NODE_JOIN, /* a ~ b */
    NODE_EQUAL,
    NODE_UNEQUAL,
    NODE_LESS,
    NODE_LESS_EQUAL,
    NODE_GREATER,
    NODE_GREATER_EQUAL,
    NODE_NOT,
    NODE_AND,
    NODE_OR,
    NODE_CHOICE,  /* a if b else c */
    NODE_DEFINED, /* name is defined */
    NODE_IS_NONE, /* a is none */
    NODE_IS_STRING,
    NODE_RAISE /* raise_exception(a) */
};

struct jinja_node {
    enum jinja_kind kind;
    uint32_t name;
    uint32_t depth;
    size_t at;
    const struct jinja_node *a, *b, *c;
    struct jinja_node *next; /* the following statement */
    const char *text;
    size_t len;
    int64_t number;
    const struct jinja_node *next_literal; /* all NODE_TEXT and NODE_STRING of the template */
};

/* What is given from outside, as indices of struct jinja.names. */
enum jinja_given {
    JINJA_MESSAGES,
    JINJA_BOS_TOKEN,
    JINJA_EOS_TOKEN,
    JINJA_ADD_GENERATION_PROMPT,
    JINJA_GIVEN_COUNT
};

struct jinja_name {
    const char *text;
    size_t len;
    bool is_read;
    bool is_set;
    bool is_read_in_loop;
    size_t at; /* its first use */
};

/* A parsed template; immutable. */
struct jinja {
    struct arena arena;
    struct jinja_name names[JINJA_MAX_NAMES];
    uint32_t n_names;
    const struct jinja_node *body;
    const struct jinja_node *literals;
};

/* Zero-initialised *out; jinja_deinit also after an error. Errors: UNSUPPORTED, NO_MEMORY. */
enum status jinja_parse(const char *text, size_t len, struct jinja *out,
                        struct error *err) MUST_USE;
void jinja_deinit(struct jinja *j);
/* Does any text that the template can write hold `mark`? */
bool jinja_spells(const struct jinja *j, const char *mark);

struct jinja_input {
    const struct chat_message *messages;
    size_t n;
    const char *bos_token;
    const char *eos_token;
    bool add_generation_prompt;
};

const char *jinja_role_name(enum chat_role role);
/* Appends. Errors: USAGE (the template refuses these messages, or asks for one that is not there;
 * too long), UNSUPPORTED (an operation that is not in the language), NO_MEMORY. */
enum status jinja_run(const struct jinja *j, const struct jinja_input *in, struct strbuf *out,
                      struct error *err) MUST_USE;

/* Bytes of the white space (as Python's str.isspace) at text, 0: none there. */
size_t jinja_space(const char *text, size_t len);
/* The part of text without white space at its ends, as str.strip, lstrip, rstrip. */
void jinja_strip(const char **text, size_t *len, bool left, bool right);

#endif
