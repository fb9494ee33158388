/*
 * jinja_run.c - runs a parsed template over messages; see jinja_int.h.
 *
 * Names live in two scopes, as in Jinja: what a turn of the loop sets is gone with that turn. An
 * operation whose result in Python is an exception, or a text that no chat template wants (None, a
 * message as a whole), is an error here.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "model/jinja_int.h"

enum value_kind {
    VALUE_UNDEFINED,
    VALUE_NONE,
    VALUE_BOOL,
    VALUE_NUMBER,
    VALUE_TEXT,
    VALUE_MESSAGE,
    VALUE_LIST
};

struct value {
    enum value_kind kind;
    int64_t number; /* BOOL, NUMBER; MESSAGE, LIST: index of the (first) message */
    int64_t end;    /* LIST */
    const char *text;
    size_t len;
};

struct run {
    const struct jinja *j;
    const struct jinja_input *in;
    struct strbuf *out;
    size_t out_start;
    struct error *err;
    struct value names[JINJA_MAX_NAMES];
    struct value turn[JINJA_MAX_NAMES]; /* what this turn of the loop set */
    struct arena arena;
    struct arena turn_arena;
    size_t held; /* bytes in either arena */
    bool in_loop;
    int64_t index0;
    int64_t length;
};

const char *jinja_role_name(enum chat_role role)
{
    static const char *const names[] = {
        [CHAT_SYSTEM] = "system", [CHAT_USER] = "user", [CHAT_ASSISTANT] = "assistant"};
    return names[role];
}

static const char *kind_name(enum value_kind kind)
{
    static const char *const names[] = {"nothing", "none",      "a truth value", "a number",
                                        "a text",  "a message", "a list"};
    return names[kind];
}

static enum status refuse(const struct run *r, const struct jinja_node *n, const char *what,
                          enum value_kind kind)
{
    return error_set(r->err, STATUS_UNSUPPORTED, (int64_t)n->at, "%s of %s (byte %zu)", what,
                     kind_name(kind), n->at);
}

static struct value number(int64_t n)
{
    return (struct value){.kind = VALUE_NUMBER, .number = n};
}

static struct value truth(bool b)
{
    return (struct value){.kind = VALUE_BOOL, .number = b};
}

static struct value text_of(const char *text, size_t len)
{
    return (struct value){.kind = VALUE_TEXT, .text = text, .len = len};
}

static bool is_true(const struct value *v)
{
    switch (v->kind) {
    case VALUE_TEXT:
        return v->len > 0;
    case VALUE_LIST:
        return v->end > v->number;
    case VALUE_MESSAGE:
        return true;
    case VALUE_BOOL:
    case VALUE_NUMBER:
        return v->number != 0;
    default:
        return false;
    }
}

static bool is_number(const struct value *v)
{
    return v->kind == VALUE_NUMBER || v->kind == VALUE_BOOL;
}

static const struct value *look_up(const struct run *r, uint32_t name)
{
    bool in_turn = r->in_loop && r->turn[name].kind != VALUE_UNDEFINED;
    return in_turn ? &r->turn[name] : &r->names[name];
}

static enum status eval(struct run *r, const struct jinja_node *n, struct value *out);

static enum status eval_number(struct run *r, const struct jinja_node *n, int64_t *out)
{
    struct value v = {0};
    enum status st = eval(r, n, &v);
    if (st == STATUS_OK && !is_number(&v)) {
        return refuse(r, n, "arithmetic", v.kind);
    }
    *out = st == STATUS_OK ? v.number : 0;
    return st;
}

static enum status too_long(const struct run *r)
{
    return error_set(r->err, STATUS_USAGE, -1, "the chat's prompt is longer than %zu bytes",
                     JINJA_MAX_TEXT_BYTES);
}

static enum status join(struct run *r, const struct value *a, const struct value *b,
                        struct value *out)
{
    r->held += a->len + b->len;
    if (r->held > JINJA_MAX_TEXT_BYTES) {
        return too_long(r);
    }
    char *text = arena_alloc(r->in_loop ? &r->turn_arena : &r->arena, a->len + b->len + 1, 1);
    if (text == NULL) {
        return error_set(r->err, STATUS_NO_MEMORY, -1, "no memory for a chat's prompt");
    }
    if (a->len > 0) {
        memcpy(text, a->text, a->len);
    }
    if (b->len > 0) {
        memcpy(text + a->len, b->text, b->len);
    }
    *out = text_of(text, a->len + b->len);
    return STATUS_OK;
}

static int64_t python_modulo(int64_t a, int64_t b)
{
    int64_t rest = b == -1 ? 0 : a % b; /* the smallest number % -1 traps */
    return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

static enum status eval_arithmetic(struct run *r, const struct jinja_node *n, struct value *out)
{
    struct value a = {0};
    struct value b = {0};
    enum status st = eval(r, n->a, &a);
    st = st == STATUS_OK ? eval(r, n->b, &b) : st;
    if (st != STATUS_OK) {
        return st;
    }
    bool texts = a.kind == VALUE_TEXT && b.kind == VALUE_TEXT;
    if (texts && (n->kind == NODE_ADD || n->kind == NODE_JOIN)) {
        return join(r, &a, &b, out);
    }
    if (!is_number(&a) || !is_number(&b) || n->kind == NODE_JOIN) {
        return refuse(r, n, "this operation", a.kind == VALUE_TEXT ? b.kind : a.kind);
    }
    int64_t result = 0;
    bool undefined = n->kind == NODE_ADD ? __builtin_add_overflow(a.number, b.number, &result)
                     : n->kind == NODE_SUBTRACT
                         ? __builtin_sub_overflow(a.number, b.number, &result)
                         : b.number == 0;
    if (undefined) {
        return error_set(r->err, STATUS_UNSUPPORTED, (int64_t)n->at,
                         "a number without bounds (byte %zu)", n->at);
    }
    *out = number(n->kind == NODE_MODULO ? python_modulo(a.number, b.number) : result);
    return STATUS_OK;
}

static enum status eval_equal(struct run *r, const struct jinja_node *n, struct value *out)
{
    struct value a = {0};
    struct value b = {0};
    enum status st = eval(r, n->a, &a);
    st = st == STATUS_OK ? eval(r, n->b, &b) : st;
    if (st != STATUS_OK) {
        return st;
    }
    bool equal = false;
    if (a.kind > VALUE_TEXT || b.kind > VALUE_TEXT) {
        return refuse(r, n, "comparison", a.kind > VALUE_TEXT ? a.kind : b.kind);
    }
    if (is_number(&a) && is_number(&b)) {
        equal = a.number == b.number;
    } else if (a.kind == VALUE_TEXT && b.kind == VALUE_TEXT) {
        equal = a.len == b.len && (a.len == 0 || memcmp(a.text, b.text, a.len) == 0);
    } else {
        equal = a.kind == b.kind;
    }
    *out = truth(equal == (n->kind == NODE_EQUAL));
    return STATUS_OK;
}

static enum status eval_order(struct run *r, const struct jinja_node *n, struct value *out)
{
    int64_t a = 0;
    int64_t b = 0;
    enum status st = eval_number(r, n->a, &a);
    st = st == STATUS_OK ? eval_number(r, n->b, &b) : st;
    *out = truth(n->kind == NODE_LESS         ? a < b
                 : n->kind == NODE_LESS_EQUAL ? a <= b
                 : n->kind == NODE_GREATER    ? a > b
                                              : a >= b);
    return st;
}

static enum status eval_field(struct run *r, const struct jinja_node *n, struct value *out)
{
    struct value v = {0};
    enum status st = eval(r, n->a, &v);
    if (st != STATUS_OK) {
        return st;
    }
    if (v.kind != VALUE_MESSAGE) {
        return refuse(r, n, "the field", v.kind);
    }
    const struct chat_message *m = &r->in->messages[v.number];
    const char *role = jinja_role_name(m->role);
    *out = n->kind == NODE_ROLE ? text_of(role, strlen(role)) : text_of(m->text, m->len);
    return STATUS_OK;
}

/* list[i] and list[i:j], counted from the end where negative. */
static enum status eval_part(struct run *r, const struct jinja_node *n, struct value *out)
{
    struct value list = {0};
    int64_t from = 0;
    int64_t to = 0;
    enum status st = eval(r, n->a, &list);
    if (st == STATUS_OK && list.kind != VALUE_LIST) {
        return refuse(r, n, "the part", list.kind);
    }
    st = st == STATUS_OK && n->b != NULL ? eval_number(r, n->b, &from) : st;
    st = st == STATUS_OK && n->c != NULL ? eval_number(r, n->c, &to) : st;
    if (st != STATUS_OK) {
        return st;
    }
    int64_t count = list.end - list.number;
    from = from < 0 ? from + count : from;
    if (n->kind == NODE_INDEX) {
        if (from < 0 || from >= count) {
            return error_set(r->err, STATUS_USAGE, -1,
                             "the model's chat template asks for more messages than these %zu",
                             r->in->n);
        }
        *out = (struct value){.kind = VALUE_MESSAGE, .number = list.number + from};
        return STATUS_OK;
    }
    to = n->c == NULL ? count : to < 0 ? to + count : to;
    to = to < 0 ? 0 : to > count ? count : to;
    from = from < 0 ? 0 : from > to ? to : from;
    *out =
        (struct value){.kind = VALUE_LIST, .number = list.number + from, .end = list.number + to};
    return STATUS_OK;
}

/* One value in, one out. */
static enum status eval_one(struct run *r, const struct jinja_node *n, struct value *out)
{
    struct value v = {0};
    enum status st = eval(r, n->a, &v);
    if (st != STATUS_OK) {
        return st;
    }
    switch (n->kind) {
    case NODE_NOT:
        *out = truth(!is_true(&v));
        return STATUS_OK;
    case NODE_IS_NONE:
        *out = truth(v.kind == VALUE_NONE);
        return STATUS_OK;
    case NODE_IS_STRING:
        *out = truth(v.kind == VALUE_TEXT);
        return STATUS_OK;
    case NODE_NEGATE:
        *out = number(-v.number);
        return STATUS_OK;
    case NODE_LENGTH:
        if (v.kind != VALUE_LIST) {
            return refuse(r, n, "the length", v.kind);
        }
        *out = number(v.end - v.number);
        return STATUS_OK;
    default:
        assert(n->kind == NODE_TRIM);
        if (v.kind != VALUE_TEXT) {
            return refuse(r, n, "the trimming", v.kind);
        }
        jinja_strip(&v.text, &v.len, true, true);
        *out = v;
        return STATUS_OK;
    }
}

static enum status eval_raise(struct run *r, const struct jinja_node *n)
{
    struct value v = {0};
    enum status st = eval(r, n->a, &v);
    if (st != STATUS_OK) {
        return st;
    }
    int len = v.kind != VALUE_TEXT ? 0 : v.len < 200 ? (int)v.len : 200;
    const char *text = len > 0 ? v.text : "";
    return r->in_loop
               ? error_set(r->err, STATUS_USAGE, -1,
                           "message %" PRId64 ": the model's chat template refuses this order of "
                           "roles: %.*s",
                           r->index0 + 1, len, text)
               : error_set(r->err, STATUS_USAGE, -1,
                           "the model's chat template refuses these messages: %.*s", len, text);
}

static enum status eval_name(struct run *r, const struct jinja_node *n, struct value *out)
{
    const struct value *v = look_up(r, n->name);
    if (n->kind == NODE_DEFINED) {
        *out = truth(v->kind != VALUE_UNDEFINED);
        return STATUS_OK;
    }
    if (v->kind == VALUE_UNDEFINED) {
        const struct jinja_name *name = &r->j->names[n->name];
        return error_set(r->err, STATUS_UNSUPPORTED, (int64_t)n->at,
                         "the name '%.*s' is read before it is set (byte %zu)",
                         (int)(name->len < 40 ? name->len : 40), name->text, n->at);
    }
    *out = *v;
    return STATUS_OK;
}

static enum status eval(struct run *r, const struct jinja_node *n, struct value *out)
{
    enum status st;
    switch (n->kind) {
    case NODE_STRING:
        *out = text_of(n->text, n->len);
        return STATUS_OK;
    case NODE_NUMBER:
        *out = number(n->number);
        return STATUS_OK;
    case NODE_BOOL:
        *out = truth(n->number != 0);
        return STATUS_OK;
    case NODE_NONE:
        *out = (struct value){.kind = VALUE_NONE};
        return STATUS_OK;
    case NODE_NAME:
    case NODE_DEFINED:
        return eval_name(r, n, out);
    case NODE_ROLE:
    case NODE_CONTENT:
        return eval_field(r, n, out);
    case NODE_INDEX:
    case NODE_SLICE:
        return eval_part(r, n, out);
    case NODE_LOOP_FIRST:
        *out = truth(r->index0 == 0);
        return STATUS_OK;
    case NODE_LOOP_LAST:
        *out = truth(r->index0 + 1 == r->length);
        return STATUS_OK;
    case NODE_LOOP_INDEX:
    case NODE_LOOP_INDEX0:
        *out = number(r->index0 + (n->kind == NODE_LOOP_INDEX));
        return STATUS_OK;
    case NODE_LOOP_LENGTH:
        *out = number(r->length);
        return STATUS_OK;
    case NODE_ADD:
    case NODE_SUBTRACT:
    case NODE_MODULO:
    case NODE_JOIN:
        return eval_arithmetic(r, n, out);
    case NODE_EQUAL:
    case NODE_UNEQUAL:
        return eval_equal(r, n, out);
    case NODE_LESS:
    case NODE_LESS_EQUAL:
    case NODE_GREATER:
    case NODE_GREATER_EQUAL:
        return eval_order(r, n, out);
    case NODE_AND:
    case NODE_OR:
        st = eval(r, n->a, out);
        return st == STATUS_OK && is_true(out) == (n->kind == NODE_AND) ? eval(r, n->b, out) : st;
    case NODE_CHOICE:
        st = eval(r, n->b, out);
        return st == STATUS_OK ? eval(r, is_true(out) ? n->a : n->c, out) : st;
    case NODE_RAISE:
        return eval_raise(r, n);
    default:
        return eval_one(r, n, out);
    }
}

/* --- statements ----------------------------------------------------------------------------- */

static enum status write_text(struct run *r, const char *text, size_t len)
{
    if (len > JINJA_MAX_TEXT_BYTES || r->out->len - r->out_start > JINJA_MAX_TEXT_BYTES - len) {
        return too_long(r);
    }
    strbuf_append(r->out, text, len);
    return r->out->failed ? error_set(r->err, STATUS_NO_MEMORY, -1, "no memory for a chat's prompt")
                          : STATUS_OK;
}

static enum status print(struct run *r, const struct jinja_node *n)
{
    struct value v = {0};
    enum status st = eval(r, n->a, &v);
    if (st == STATUS_OK && v.kind != VALUE_TEXT) {
        return refuse(r, n, "the text", v.kind);
    }
    return st == STATUS_OK ? write_text(r, v.text, v.len) : st;
}

static enum status run_block(struct run *r, const struct jinja_node *n);

static enum status run_if(struct run *r, const struct jinja_node *n)
{
    for (; n != NULL; n = n->c) {
        struct value v = truth(true);
        enum status st = n->a != NULL ? eval(r, n->a, &v) : STATUS_OK;
        if (st != STATUS_OK) {
            return st;
        }
        if (is_true(&v)) {
            return run_block(r, n->b);
        }
    }
    return STATUS_OK;
}

static enum status run_for(struct run *r, const struct jinja_node *n)
{
    struct value list = {0};
    enum status st = eval(r, n->a, &list);
    if (st == STATUS_OK && list.kind != VALUE_LIST) {
        return refuse(r, n, "a loop over the members", list.kind);
    }
    if (st != STATUS_OK) {
        return st;
    }
    size_t held = r->held;
    r->length = list.end - list.number;
    r->in_loop = true;
    for (r->index0 = 0; r->index0 < r->length && st == STATUS_OK; r->index0++) {
        memset(r->turn, 0, sizeof r->turn);
        r->turn[n->name] = (struct value){.kind = VALUE_MESSAGE, .number = list.number + r->index0};
        st = run_block(r, n->b);
        arena_deinit(&r->turn_arena);
        r->turn_arena = (struct arena){0};
        r->held = held;
    }
    r->in_loop = false;
    return st;
}

static enum status run_set(struct run *r, const struct jinja_node *n)
{
    struct value v = {0}; /* not in its place at once: the expression may read the name */
    enum status st = eval(r, n->a, &v);
    if (st == STATUS_OK) {
        *(r->in_loop ? &r->turn[n->name] : &r->names[n->name]) = v;
    }
    return st;
}

static enum status run_block(struct run *r, const struct jinja_node *n)
{
    enum status st = STATUS_OK;
    for (; n != NULL && st == STATUS_OK; n = n->next) {
        switch (n->kind) {
        case NODE_TEXT:
            st = write_text(r, n->text, n->len);
            break;
        case NODE_PRINT:
            st = print(r, n);
            break;
        case NODE_IF:
            st = run_if(r, n);
            break;
        case NODE_FOR:
            st = run_for(r, n);
            break;
        default:
            assert(n->kind == NODE_SET);
            st = run_set(r, n);
        }
    }
    return st;
}

enum status jinja_run(const struct jinja *j, const struct jinja_input *in, struct strbuf *out,
                      struct error *err)
{
    struct run r = {.j = j, .in = in, .out = out, .out_start = out->len, .err = err};
    r.names[JINJA_MESSAGES] = (struct value){.kind = VALUE_LIST, .end = (int64_t)in->n};
    r.names[JINJA_BOS_TOKEN] = text_of(in->bos_token, strlen(in->bos_token));
    r.names[JINJA_EOS_TOKEN] = text_of(in->eos_token, strlen(in->eos_token));
    r.names[JINJA_ADD_GENERATION_PROMPT] = truth(in->add_generation_prompt);
    enum status st = run_block(&r, j->body);
    arena_deinit(&r.arena);
    arena_deinit(&r.turn_arena);
    return st;
}
