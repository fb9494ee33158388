/* options.c - see options.h. */
#include "cli/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define NEAREST_MAX_WORD 64

static size_t edit_distance(const char *a, const char *b)
{
    size_t la = strlen(a);
    size_t lb = strlen(b);
    if (la >= NEAREST_MAX_WORD || lb >= NEAREST_MAX_WORD) {
        return NEAREST_MAX_WORD;
    }
    size_t row[NEAREST_MAX_WORD];
    for (size_t j = 0; j <= lb; j++) {
        row[j] = j;
    }
    for (size_t i = 1; i <= la; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= lb; j++) {
            size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            size_t best = row[j] < row[j - 1] ? row[j] : row[j - 1];
            row[j] = best + 1 < change ? best + 1 : change;
        }
    }
    return row[lb];
}

const char *options_nearest(const char *word, const char *const *candidates, size_t n)
{
    const char *best = NULL;
    size_t best_distance = strlen(word) / 3 + 2;
    for (size_t i = 0; i < n; i++) {
        size_t d = edit_distance(word, candidates[i]);
        if (d < best_distance) {
            best_distance = d;
            best = candidates[i];
        }
    }
    return best;
}

void text_list_deinit(struct text_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        mem_free(l->items[i]);
    }
    mem_free(l->items);
    l->items = NULL;
    l->n = 0;
}

static enum status list_add(struct text_list *l, const char *text, size_t len, struct error *err)
{
    char **items = mem_resize(l->items, l->n + 1, sizeof *items);
    if (items == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the arguments");
    }
    l->items = items;
    items[l->n] = mem_strndup(text, len);
    if (items[l->n] == NULL) {
        return error_set(err, STATUS_NO_MEMORY, -1, "no memory for the arguments");
    }
    l->n++;
    return STATUS_OK;
}

static enum status list_add_split(struct text_list *l, const char *text, struct error *err)
{
    while (*text != '\0') {
        size_t len = strcspn(text, ",");
        if (len > 0) {
            enum status s = list_add(l, text, len, err);
            if (s != STATUS_OK) {
                return s;
            }
        }
        text += len + (text[len] == ',' ? 1 : 0);
    }
    return STATUS_OK;
}

static bool is_choice(const char *text, const char *choices)
{
    size_t len = strlen(text);
    for (const char *p = choices; *p != '\0';) {
        size_t n = strcspn(p, "|");
        if (n == len && memcmp(p, text, n) == 0) {
            return true;
        }
        p += n + (p[n] == '|' ? 1 : 0);
    }
    return false;
}

static enum status parse_number(const struct option_spec *o, const char *text, struct error *err)
{
    char *end;
    errno = 0;
    double value = strtod(text, &end);
    bool whole = o->kind == OPTION_UINT;
    if (end == text || *end != '\0' || !isfinite(value) || strpbrk(text, "xXpP") != NULL ||
        (whole && (value != floor(value) || value < 0))) {
        return error_set(err, STATUS_USAGE, -1, "%s: \"%s\" is not a %snumber", o->name, text,
                         whole ? "whole " : "");
    }
    if (!(value >= o->min && value <= o->max)) {
        return error_set(err, STATUS_USAGE, -1, "%s: %s is out of range; it may be %.15g to %.15g",
                         o->name, text, o->min, o->max);
    }
    if (whole) {
        *(uint64_t *)o->target = (uint64_t)value;
    } else {
        *(double *)o->target = value;
    }
    return STATUS_OK;
}

static enum status store(const struct option_spec *o, const char *text, struct error *err)
{
    switch (o->kind) {
    case OPTION_FLAG:
        return error_set(err, STATUS_USAGE, -1, "%s takes no value", o->name);
    case OPTION_ON_OFF:
        if (strcmp(text, "on") != 0 && strcmp(text, "off") != 0) {
            return error_set(err, STATUS_USAGE, -1, "%s: \"%s\" is neither on nor off", o->name,
                             text);
        }
        *(bool *)o->target = text[1] == 'n';
        return STATUS_OK;
    case OPTION_CHOICE:
        if (!is_choice(text, o->choices)) {
            return error_set(err, STATUS_USAGE, -1, "%s: \"%s\" is not one of %s", o->name, text,
                             o->choices);
        }
        *(const char **)o->target = text;
        return STATUS_OK;
    case OPTION_TEXT:
        *(const char **)o->target = text;
        return STATUS_OK;
    case OPTION_UINT:
    case OPTION_REAL:
        return parse_number(o, text, err);
    case OPTION_LIST:
        if (text[strspn(text, ",")] == '\0') {
            return error_set(err, STATUS_USAGE, -1, "%s: \"%s\" names nothing", o->name, text);
        }
        return list_add_split(o->target, text, err);
    case OPTION_REPEAT:
        return list_add(o->target, text, strlen(text), err);
    }
    return STATUS_INTERNAL;
}

static enum status unknown_option(const struct option_spec *specs, size_t n_specs, const char *arg,
                                  struct error *err)
{
    const char **names = mem_alloc(n_specs + 1, sizeof *names);
    const char *near = NULL;
    if (names != NULL) {
        for (size_t i = 0; i < n_specs; i++) {
            names[i] = specs[i].name;
        }
        names[n_specs] = "--help";
        near = options_nearest(arg, names, n_specs + 1);
    }
    enum status s =
        near != NULL
            ? error_set(err, STATUS_USAGE, -1, "unknown option %s; did you mean %s?", arg, near)
            : error_set(err, STATUS_USAGE, -1, "unknown option %s; --help lists them", arg);
    mem_free(names);
    return s;
}

/* The spec that arg ("--name", "--name=value", "-q") means, with *value after '='. */
static const struct option_spec *find(const struct option_spec *specs, size_t n_specs,
                                      const char *arg, const char **value)
{
    size_t len = strcspn(arg, "=");
    *value = arg[len] == '=' ? arg + len + 1 : NULL;
    for (size_t i = 0; i < n_specs; i++) {
        const struct option_spec *o = &specs[i];
        bool by_letter = o->letter != 0 && arg[1] == o->letter && arg[2] == '\0';
        bool by_name = strlen(o->name) == len && memcmp(o->name, arg, len) == 0;
        if (by_letter || by_name) {
            return o;
        }
    }
    return NULL;
}

static bool looks_like_option(const char *arg)
{
    bool number =
        arg[0] == '-' && arg[1] != '\0' && strspn(arg + 1, "0123456789.") == strlen(arg + 1);
    return arg[0] == '-' && arg[1] != '\0' && !number;
}

/* One option at argv[*i]; leaves *i at its last word. */
static enum status take_option(const struct option_spec *specs, size_t n_specs, int argc,
                               char **argv, int *i, struct error *err)
{
    const char *value;
    const struct option_spec *o = find(specs, n_specs, argv[*i], &value);
    if (o == NULL) {
        return unknown_option(specs, n_specs, argv[*i], err);
    }
    if (o->kind == OPTION_FLAG && value == NULL) {
        *(bool *)o->target = true;
        return STATUS_OK;
    }
    if (value != NULL) {
        return store(o, value, err);
    }
    if (*i + 1 >= argc || looks_like_option(argv[*i + 1])) {
        return error_set(err, STATUS_USAGE, -1,
                         "%s needs a value; one that begins with '-' is given as %s=VALUE", o->name,
                         o->name);
    }
    enum status s = STATUS_OK;
    do {
        s = store(o, argv[++*i], err);
    } while (s == STATUS_OK && o->kind == OPTION_LIST && *i + 1 < argc &&
             !looks_like_option(argv[*i + 1]));
    return s;
}

enum status options_parse(const struct option_spec *specs, size_t n_specs, int argc, char **argv,
                          struct text_list *positional, bool *help, struct error *err)
{
    *help = false;
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            *help = true;
            return STATUS_OK;
        }
    }
    bool only_positional = false;
    for (int i = 1; i < argc; i++) {
        enum status s;
        if (!only_positional && strcmp(argv[i], "--") == 0) {
            only_positional = true;
            continue;
        }
        if (!only_positional && looks_like_option(argv[i])) {
            s = take_option(specs, n_specs, argc, argv, &i, err);
        } else if (positional == NULL) {
            s = error_set(err, STATUS_USAGE, -1,
                          "unexpected argument \"%s\"; --help shows the usage", argv[i]);
        } else {
            s = list_add(positional, argv[i], strlen(argv[i]), err);
        }
        if (s != STATUS_OK) {
            return s;
        }
    }
    return STATUS_OK;
}

#define HELP_COLUMN 30
#define HELP_WIDTH  100

/* Text wrapped at HELP_WIDTH, each line after the first indented to HELP_COLUMN. */
static void print_wrapped(const char *text)
{
    size_t room = HELP_WIDTH - HELP_COLUMN;
    size_t used = 0;
    while (*text != '\0') {
        size_t word = strcspn(text, " ");
        if (used > 0 && used + 1 + word > room) {
            printf("\n%*s", HELP_COLUMN, "");
            used = 0;
        }
        printf("%s%.*s", used > 0 ? " " : "", (int)word, text);
        used += word + (used > 0 ? 1 : 0);
        text += word;
        text += strspn(text, " ");
    }
    putchar('\n');
}

void options_print_help(const struct command *command, const struct option_spec *specs,
                        size_t n_specs)
{
    printf("%s\n\nUsage: llmsched %s %s\n", command->summary, command->name, command->usage);
    if (command->examples != NULL) {
        printf("\nExamples:\n%s", command->examples);
    }
    if (n_specs > 0) {
        printf("\nOptions:\n");
    }
    for (size_t i = 0; i < n_specs; i++) {
        const struct option_spec *o = &specs[i];
        char left[64];
        const char *value = o->kind == OPTION_ON_OFF   ? "on|off"
                            : o->kind == OPTION_CHOICE ? o->choices
                            : o->value != NULL         ? o->value
                                                       : "";
        char letter[8] = "";
        if (o->letter != 0) {
            snprintf(letter, sizeof letter, "-%c, ", o->letter);
        }
        snprintf(left, sizeof left, "  %s%s%s%s", letter, o->name, value[0] != '\0' ? " " : "",
                 value);
        if (strlen(left) + 1 >= HELP_COLUMN) {
            printf("%s\n%*s", left, HELP_COLUMN, "");
        } else {
            printf("%-*s", HELP_COLUMN, left);
        }
        print_wrapped(o->help);
    }
}
