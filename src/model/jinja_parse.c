/*
 * jinja_parse.c - tokens into a tree; see jinja_int.h. The order of binding is Jinja's: `if else`,
 * or, and, not, comparison, + -, ~, %, sign, then . [] () and | and `is`.
 *
 * A function that cannot go on records why and gives NULL; the first reason stays.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "model/jinja_int.h"

#define COUNT_OF(a) (sizeof(a) / sizeof(a)[0])

struct parser {
    struct jinja *j;
    const struct jinja_token *token; /* the next one */
    uint32_t depth;
    bool in_loop;
    enum status st;
    struct error *err;
};

PRINTF_LIKE(3, 4)
static struct jinja_node *refuse(struct parser *p, size_t at, const char *fmt, ...)
{
    char what[160];
    va_list args;
    va_start(args, fmt);
    vsnprintf(what, sizeof what, fmt, args);
    va_end(args);
    if (p->st == STATUS_OK) {
        p->st = error_set(p->err, STATUS_UNSUPPORTED, (int64_t)at, "%s (byte %zu)", what, at);
    }
    return NULL;
}

static struct jinja_node *refuse_token(struct parser *p, const char *wanted)
{
    const struct jinja_token *t = p->token;
    switch (t->kind) {
    case JINJA_NAME:
    case JINJA_OPERATOR:
        return refuse(p, t->at, "'%.*s' where %s is expected", (int)(t->len < 40 ? t->len : 40),
                      t->text, wanted);
    case JINJA_STRING:
    case JINJA_NUMBER:
        return refuse(p, t->at, "a value where %s is expected", wanted);
    default:
        return refuse(p, t->at, "%s where %s is expected",
                      t->kind == JINJA_END ? "the template's end" : "a tag's edge", wanted);
    }
}

static bool is_token(const struct parser *p, enum jinja_token_kind kind, const char *text)
{
    const struct jinja_token *t = p->token;
    return t->kind == kind && t->len == strlen(text) && memcmp(t->text, text, t->len) == 0;
}

static bool is_operator(const struct parser *p, const char *text)
{
    return is_token(p, JINJA_OPERATOR, text);
}

static bool is_word(const struct parser *p, const char *text)
{
    return is_token(p, JINJA_NAME, text);
}

static bool take_operator(struct parser *p, const char *text)
{
    bool found = is_operator(p, text);
    p->token += found;
    return found;
}

static bool take_word(struct parser *p, const char *text)
{
    bool found = is_word(p, text);
    p->token += found;
    return found;
}

static bool want_operator(struct parser *p, const char *text)
{
    bool found = take_operator(p, text);
    if (!found) {
        refuse_token(p, text);
    }
    return found;
}

static bool want_kind(struct parser *p, enum jinja_token_kind kind, const char *wanted)
{
    bool found = p->token->kind == kind;
    if (!found) {
        refuse_token(p, wanted);
    }
    p->token += found;
    return found;
}

/* Operands that failed to parse (NULL while p->st says why) give NULL. */
static struct jinja_node *make(struct parser *p, enum jinja_kind kind, size_t at,
                               const struct jinja_node *a, const struct jinja_node *b,
                               const struct jinja_node *c)
{
    if (p->st != STATUS_OK) {
        return NULL;
    }
    uint32_t depth = a != NULL ? a->depth : 0;
    depth = b != NULL && b->depth > depth ? b->depth : depth;
    depth = c != NULL && c->depth > depth ? c->depth : depth;
    if (depth >= JINJA_MAX_DEPTH) {
        return refuse(p, at, "nested too deeply");
    }
    struct jinja_node *n = arena_alloc(&p->j->arena, 1, sizeof *n);
    if (n == NULL) {
        p->st = error_set(p->err, STATUS_NO_MEMORY, -1, "no memory for a chat template");
        return NULL;
    }
    *n = (struct jinja_node){.kind = kind, .at = at, .a = a, .b = b, .c = c, .depth = depth + 1};
    return n;
}

static struct jinja_node *make_text(struct parser *p, enum jinja_kind kind)
{
    struct jinja_node *n = make(p, kind, p->token->at, NULL, NULL, NULL);
    if (n != NULL) {
        n->text = p->token->text;
        n->len = p->token->len;
        n->next_literal = p->j->literals;
        p->j->literals = n;
        p->token++;
    }
    return n;
}

static struct jinja_node *make_number(struct parser *p, enum jinja_kind kind, int64_t number)
{
    struct jinja_node *n = make(p, kind, p->token->at, NULL, NULL, NULL);
    if (n != NULL) {
        n->number = number;
        p->token++;
    }
    return n;
}

/* The index of a name, which is new where need be. */
static uint32_t name_of(struct parser *p, const char *text, size_t len, size_t at)
{
    struct jinja *j = p->j;
    for (uint32_t i = 0; i < j->n_names; i++) {
        if (j->names[i].len == len && memcmp(j->names[i].text, text, len) == 0) {
            return i;
        }
    }
    if (j->n_names == JINJA_MAX_NAMES) {
        refuse(p, at, "more than %u names", JINJA_MAX_NAMES);
        return 0;
    }
    j->names[j->n_names] = (struct jinja_name){.text = text, .len = len, .at = at};
    return j->n_names++;
}

/* The name that comes now: no word of the language, and nothing that Jinja or Transformers would
 * give a meaning which it has not got here. */
static bool take_name(struct parser *p, uint32_t *name)
{
    static const char *const elsewhere[] = {
        "tools",        "documents",      "unk_token",
        "sep_token",    "pad_token",      "cls_token",
        "mask_token",   "image_token",    "additional_special_tokens",
        "range",        "dict",           "lipsum",
        "cycler",       "joiner",         "namespace",
        "strftime_now", "raise_exception"};
    static const char *const reserved[] = {
        "and",   "or",   "not",   "in",   "is",   "if",   "else",  "elif", "for",   "true",  "True",
        "false", "None", "False", "none", "loop", "self", "super", "set",  "endif", "endfor"};
    for (size_t i = 0; i < COUNT_OF(reserved); i++) {
        if (is_word(p, reserved[i])) {
            refuse_token(p, "a name");
            return false;
        }
    }
    for (size_t i = 0; i < COUNT_OF(elsewhere); i++) {
        if (is_word(p, elsewhere[i])) {
            refuse(p, p->token->at, "the name '%s'", elsewhere[i]);
            return false;
        }
    }
    if (!want_kind(p, JINJA_NAME, "a name")) {
        return false;
    }
    *name = name_of(p, p->token[-1].text, p->token[-1].len, p->token[-1].at);
    return p->st == STATUS_OK;
}

static const struct jinja_node *expression(struct parser *p);
static const struct jinja_node *unary(struct parser *p, bool filters);

static const struct jinja_node *loop_field(struct parser *p)
{
    static const struct {
        const char *name;
        enum jinja_kind kind;
    } fields[] = {{"first", NODE_LOOP_FIRST},
                  {"last", NODE_LOOP_LAST},
                  {"index", NODE_LOOP_INDEX},
                  {"index0", NODE_LOOP_INDEX0},
                  {"length", NODE_LOOP_LENGTH}};
    size_t at = p->token[-1].at;
    if (!p->in_loop) {
        return refuse(p, at, "'loop' outside of a loop");
    }
    if (want_operator(p, ".")) {
        for (size_t i = 0; i < COUNT_OF(fields); i++) {
            if (take_word(p, fields[i].name)) {
                return make(p, fields[i].kind, at, NULL, NULL, NULL);
            }
        }
        refuse_token(p, "first, last, index, index0 or length");
    }
    return NULL;
}

static const struct jinja_node *in_parentheses(struct parser *p)
{
    const struct jinja_node *n = NULL;
    if (++p->depth > JINJA_MAX_DEPTH) {
        return refuse(p, p->token->at, "nested too deeply");
    }
    if (want_operator(p, "(")) {
        n = expression(p);
    }
    p->depth--;
    return p->st == STATUS_OK && want_operator(p, ")") ? n : NULL;
}

static const struct jinja_node *primary(struct parser *p)
{
    const struct jinja_token *t = p->token;
    if (is_operator(p, "(")) {
        return in_parentheses(p);
    }
    if (t->kind == JINJA_STRING) {
        return make_text(p, NODE_STRING);
    }
    if (t->kind == JINJA_NUMBER) {
        return make_number(p, NODE_NUMBER, t->number);
    }
    if (is_word(p, "true") || is_word(p, "True") || is_word(p, "false") || is_word(p, "False")) {
        return make_number(p, NODE_BOOL, t->text[0] == 't' || t->text[0] == 'T');
    }
    if (is_word(p, "none") || is_word(p, "None")) {
        return make_number(p, NODE_NONE, 0);
    }
    if (take_word(p, "loop")) {
        return loop_field(p);
    }
    if (take_word(p, "raise_exception")) {
        const struct jinja_node *text = in_parentheses(p);
        return make(p, NODE_RAISE, t->at, text, NULL, NULL);
    }
    uint32_t name = 0;
    if (t->kind != JINJA_NAME) {
        return refuse_token(p, "a value");
    }
    if (!take_name(p, &name)) {
        return NULL;
    }
    struct jinja_node *n = make(p, NODE_NAME, t->at, NULL, NULL, NULL);
    if (n != NULL) {
        n->name = name;
        p->j->names[name].is_read = true;
        p->j->names[name].is_read_in_loop |= p->in_loop;
    }
    return n;
}

/* After "x[": an index, a slice, or a field. */
static const struct jinja_node *subscript(struct parser *p, const struct jinja_node *a)
{
    size_t at = p->token->at;
    if (p->token->kind == JINJA_STRING) {
        bool role = is_token(p, JINJA_STRING, "role");
        if (!role && !is_token(p, JINJA_STRING, "content")) {
            return refuse(p, at, "the key '%.*s' of a message", 40, p->token->text);
        }
        p->token++;
        return want_operator(p, "]") ? make(p, role ? NODE_ROLE : NODE_CONTENT, at, a, NULL, NULL)
                                     : NULL;
    }
    if (++p->depth > JINJA_MAX_DEPTH) {
        return refuse(p, at, "nested too deeply");
    }
    const struct jinja_node *from = is_operator(p, ":") ? NULL : expression(p);
    bool is_slice = p->st == STATUS_OK && take_operator(p, ":");
    const struct jinja_node *to = is_slice && !is_operator(p, "]") ? expression(p) : NULL;
    p->depth--;
    if (p->st != STATUS_OK || !want_operator(p, "]")) {
        return NULL;
    }
    return make(p, is_slice ? NODE_SLICE : NODE_INDEX, at, a, from, to);
}

/* After "x.": a field, or a method without arguments. */
static const struct jinja_node *attribute(struct parser *p, const struct jinja_node *a)
{
    size_t at = p->token->at;
    if (take_word(p, "role")) {
        return make(p, NODE_ROLE, at, a, NULL, NULL);
    }
    if (take_word(p, "content")) {
        return make(p, NODE_CONTENT, at, a, NULL, NULL);
    }
    if (take_word(p, "strip")) {
        return want_operator(p, "(") && want_operator(p, ")")
                   ? make(p, NODE_TRIM, at, a, NULL, NULL)
                   : NULL;
    }
    return refuse_token(p, "role, content or strip()");
}

static const struct jinja_node *test(struct parser *p, const struct jinja_node *a)
{
    size_t at = p->token->at;
    bool negated = take_word(p, "not");
    struct jinja_node *n = NULL;
    if (take_word(p, "none")) {
        n = make(p, NODE_IS_NONE, at, a, NULL, NULL);
    } else if (take_word(p, "string")) {
        n = make(p, NODE_IS_STRING, at, a, NULL, NULL);
    } else if (!is_word(p, "defined")) {
        return refuse_token(p, "none, string or defined");
    } else if (a->kind != NODE_NAME) {
        return refuse(p, at, "'is defined' of anything but a name");
    } else {
        p->token++;
        n = make(p, NODE_DEFINED, at, NULL, NULL, NULL);
        if (n != NULL) {
            n->name = a->name;
        }
    }
    return negated ? make(p, NODE_NOT, at, n, NULL, NULL) : n;
}

static const struct jinja_node *filter(struct parser *p, const struct jinja_node *a)
{
    size_t at = p->token->at;
    const struct jinja_node *n = NULL;
    if (take_word(p, "trim")) {
        n = make(p, NODE_TRIM, at, a, NULL, NULL);
    } else if (take_word(p, "length")) {
        n = make(p, NODE_LENGTH, at, a, NULL, NULL);
    } else {
        return refuse_token(p, "trim or length");
    }
    return n;
}

static const struct jinja_node *unary(struct parser *p, bool filters)
{
    const struct jinja_node *n;
    size_t at = p->token->at;
    if (take_operator(p, "-")) {
        if (p->token->kind != JINJA_NUMBER) {
            return refuse_token(p, "a number after the sign");
        }
        n = make(p, NODE_NEGATE, at, unary(p, false), NULL, NULL);
    } else {
        n = primary(p);
    }
    while (p->st == STATUS_OK && (is_operator(p, ".") || is_operator(p, "["))) {
        n = take_operator(p, ".") ? attribute(p, n) : (p->token++, subscript(p, n));
    }
    while (p->st == STATUS_OK && filters && (is_operator(p, "|") || is_word(p, "is"))) {
        n = take_operator(p, "|") ? filter(p, n) : (p->token++, test(p, n));
    }
    return n;
}

struct level {
    const char *text;
    enum jinja_kind kind;
};

/* The operator that comes now, if it is one of these. */
static const struct level *take_level(struct parser *p, const struct level *levels, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (levels[i].text != NULL && take_operator(p, levels[i].text)) {
            return &levels[i];
        }
    }
    return NULL;
}

static const struct jinja_node *arithmetic(struct parser *p, size_t level)
{
    /* From the operators that bind least; all associate to the left. */
    static const struct level levels[3][2] = {{{"+", NODE_ADD}, {"-", NODE_SUBTRACT}},
                                              {{"~", NODE_JOIN}, {NULL, NODE_JOIN}},
                                              {{"%", NODE_MODULO}, {NULL, NODE_MODULO}}};
    if (level == COUNT_OF(levels)) {
        return unary(p, true);
    }
    const struct jinja_node *a = arithmetic(p, level + 1);
    while (p->st == STATUS_OK) {
        size_t at = p->token->at;
        const struct level *l = take_level(p, levels[level], 2);
        if (l == NULL) {
            break;
        }
        const struct jinja_node *b = arithmetic(p, level + 1);
        a = make(p, l->kind, at, a, b, NULL);
    }
    return a;
}

static const struct jinja_node *comparison(struct parser *p)
{
    static const struct level operators[] = {
        {"==", NODE_EQUAL}, {"!=", NODE_UNEQUAL}, {"<=", NODE_LESS_EQUAL},
        {"<", NODE_LESS},   {">", NODE_GREATER},  {">=", NODE_GREATER_EQUAL},
    };
    const struct jinja_node *a = arithmetic(p, 0);
    size_t at = p->token->at;
    const struct level *l =
        p->st == STATUS_OK ? take_level(p, operators, COUNT_OF(operators)) : NULL;
    if (l != NULL) {
        const struct jinja_node *b = arithmetic(p, 0);
        a = make(p, l->kind, at, a, b, NULL);
        if (p->st == STATUS_OK && take_level(p, operators, COUNT_OF(operators)) != NULL) {
            return refuse(p, at, "a chain of comparisons");
        }
    }
    return a;
}

static const struct jinja_node *negation(struct parser *p)
{
    size_t at = p->token->at;
    if (!take_word(p, "not")) {
        return comparison(p);
    }
    if (++p->depth > JINJA_MAX_DEPTH) {
        return refuse(p, at, "nested too deeply");
    }
    const struct jinja_node *a = negation(p);
    p->depth--;
    return make(p, NODE_NOT, at, a, NULL, NULL);
}

static const struct jinja_node *conjunction(struct parser *p)
{
    const struct jinja_node *a = negation(p);
    size_t at = p->token->at;
    while (p->st == STATUS_OK && take_word(p, "and")) {
        const struct jinja_node *b = negation(p);
        a = make(p, NODE_AND, at, a, b, NULL);
    }
    return a;
}

static const struct jinja_node *disjunction(struct parser *p)
{
    const struct jinja_node *a = conjunction(p);
    size_t at = p->token->at;
    while (p->st == STATUS_OK && take_word(p, "or")) {
        const struct jinja_node *b = conjunction(p);
        a = make(p, NODE_OR, at, a, b, NULL);
    }
    return a;
}

static const struct jinja_node *expression(struct parser *p)
{
    const struct jinja_node *a = disjunction(p);
    size_t at = p->token->at;
    if (p->st != STATUS_OK || !take_word(p, "if")) {
        return a;
    }
    const struct jinja_node *condition = disjunction(p);
    if (p->st != STATUS_OK) {
        return NULL;
    }
    if (!take_word(p, "else")) {
        return refuse_token(p, "else");
    }
    if (++p->depth > JINJA_MAX_DEPTH) {
        return refuse(p, at, "nested too deeply");
    }
    const struct jinja_node *otherwise = expression(p);
    p->depth--;
    return make(p, NODE_CHOICE, at, a, condition, otherwise);
}

/* --- statements ----------------------------------------------------------------------------- */

static const struct jinja_node *block(struct parser *p);

static bool end_block(struct parser *p)
{
    return p->st == STATUS_OK && want_kind(p, JINJA_BLOCK_END, "the tag's end");
}

/* At "{%", is the word behind it this one? */
static bool take_tag(struct parser *p, const char *word)
{
    if (p->token->kind != JINJA_BLOCK_BEGIN) {
        return false;
    }
    p->token++;
    if (take_word(p, word)) {
        return true;
    }
    p->token--;
    return false;
}

static bool want_tag(struct parser *p, const char *word)
{
    if (p->st != STATUS_OK) {
        return false;
    }
    if (!take_tag(p, word)) {
        p->token += p->token->kind == JINJA_BLOCK_BEGIN;
        refuse_token(p, word);
        return false;
    }
    return end_block(p);
}

static struct jinja_node *statement_if(struct parser *p, size_t at)
{
    struct jinja_node *first = NULL;
    struct jinja_node *last = NULL;
    bool is_else = false;
    do {
        const struct jinja_node *condition = is_else ? NULL : disjunction(p);
        const struct jinja_node *body = end_block(p) ? block(p) : NULL;
        struct jinja_node *n = make(p, NODE_IF, at, condition, NULL, NULL);
        if (n == NULL) {
            return NULL;
        }
        n->b = body;
        if (last != NULL) {
            last->c = n;
        }
        first = first == NULL ? n : first;
        last = n;
        if (is_else) {
            break;
        }
        is_else = take_tag(p, "else");
    } while (is_else || take_tag(p, "elif"));
    return want_tag(p, "endif") ? first : NULL;
}

static struct jinja_node *statement_for(struct parser *p, size_t at)
{
    uint32_t name = 0;
    if (p->in_loop) {
        return refuse(p, at, "a loop inside a loop");
    }
    if (!take_name(p, &name)) {
        return NULL;
    }
    p->j->names[name].is_set = true;
    if (!take_word(p, "in")) {
        return refuse_token(p, "in");
    }
    const struct jinja_node *list = disjunction(p);
    p->in_loop = true;
    const struct jinja_node *body = end_block(p) ? block(p) : NULL;
    p->in_loop = false;
    if (!want_tag(p, "endfor")) {
        return NULL;
    }
    struct jinja_node *n = make(p, NODE_FOR, at, list, NULL, NULL);
    if (n != NULL) {
        n->b = body;
        n->name = name;
    }
    return n;
}

static struct jinja_node *statement_set(struct parser *p, size_t at)
{
    uint32_t name = 0;
    if (!take_name(p, &name) || !want_operator(p, "=")) {
        return NULL;
    }
    /* To Jinja the name is then not the given one in that loop either, but undefined. */
    if (name < JINJA_GIVEN_COUNT && !p->in_loop && p->j->names[name].is_read_in_loop) {
        return refuse(p, at, "'%s' is set after a loop that reads it", p->j->names[name].text);
    }
    const struct jinja_node *value = expression(p);
    if (!end_block(p)) {
        return NULL;
    }
    struct jinja_node *n = make(p, NODE_SET, at, value, NULL, NULL);
    if (n != NULL) {
        n->name = name;
        p->j->names[name].is_set = true;
    }
    return n;
}

static struct jinja_node *statement_print(struct parser *p, size_t at)
{
    p->token++;
    const struct jinja_node *value = expression(p);
    if (p->st != STATUS_OK || !want_kind(p, JINJA_PRINT_END, "}}")) {
        return NULL;
    }
    return make(p, NODE_PRINT, at, value, NULL, NULL);
}

/* A tag that ends or divides a block is left for the caller. */
static bool ends_block(const struct parser *p)
{
    static const char *const words[] = {"endif", "endfor", "else", "elif"};
    struct parser ahead = *p;
    bool ends = p->token->kind == JINJA_END;
    for (size_t i = 0; i < COUNT_OF(words) && !ends; i++) {
        ends = take_tag(&ahead, words[i]);
    }
    return ends;
}

static struct jinja_node *statement(struct parser *p)
{
    size_t at = p->token->at;
    if (p->token->kind == JINJA_TEXT) {
        return make_text(p, NODE_TEXT);
    }
    if (p->token->kind == JINJA_PRINT_BEGIN) {
        return statement_print(p, at);
    }
    if (take_tag(p, "if")) {
        return statement_if(p, at);
    }
    if (take_tag(p, "for")) {
        return statement_for(p, at);
    }
    if (take_tag(p, "set")) {
        return statement_set(p, at);
    }
    p->token++;
    return refuse_token(p, "if, for or set");
}

/* NULL for an empty one, too. */
static const struct jinja_node *block(struct parser *p)
{
    struct jinja_node *first = NULL;
    struct jinja_node *last = NULL;
    if (++p->depth > JINJA_MAX_DEPTH) {
        return refuse(p, p->token->at, "nested too deeply");
    }
    while (p->st == STATUS_OK && !ends_block(p)) {
        struct jinja_node *n = statement(p);
        if (n == NULL) {
            break;
        }
        if (last != NULL) {
            last->next = n;
        }
        first = first == NULL ? n : first;
        last = n;
    }
    p->depth--;
    return first;
}

enum status jinja_parse(const char *text, size_t len, struct jinja *out, struct error *err)
{
    static const char *const given[JINJA_GIVEN_COUNT] = {"messages", "bos_token", "eos_token",
                                                         "add_generation_prompt"};
    struct jinja_tokens tokens = {0};
    enum status st = jinja_lex(text, len, &out->arena, &tokens, err);
    if (st == STATUS_OK) {
        struct parser p = {.j = out, .token = tokens.items, .err = err};
        for (size_t i = 0; i < JINJA_GIVEN_COUNT; i++) {
            uint32_t name = name_of(&p, given[i], strlen(given[i]), 0);
            out->names[name].is_set = true;
        }
        out->body = block(&p);
        if (p.st == STATUS_OK && p.token->kind != JINJA_END) {
            p.token++;
            refuse_token(&p, "the template's end");
        }
        for (uint32_t i = 0; i < out->n_names; i++) {
            const struct jinja_name *n = &out->names[i];
            if (!n->is_set) {
                refuse(&p, n->at, "the name '%.*s', which is neither given nor set",
                       (int)(n->len < 40 ? n->len : 40), n->text);
            }
        }
        st = p.st;
    }
    mem_free(tokens.items);
    return st;
}

void jinja_deinit(struct jinja *j)
{
    arena_deinit(&j->arena);
    *j = (struct jinja){0};
}

bool jinja_spells(const struct jinja *j, const char *mark)
{
    for (const struct jinja_node *n = j->literals; n != NULL; n = n->next_literal) {
        if (memmem(n->text, n->len, mark, strlen(mark)) != NULL) {
            return true;
        }
    }
    return false;
}
