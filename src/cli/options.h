/*
 * options.h - one table per subcommand; from it come parsing, range checks, suggestions and --help.
 *
 * Lists take values until the next option and split at commas: `--sizes 25 50` = `--sizes 25,50`.
 * `--name=value` works for all. After `--` everything is positional. No abbreviations.
 */
#ifndef LLMSCHED_CLI_OPTIONS_H
#define LLMSCHED_CLI_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

enum option_kind {
    OPTION_FLAG,   /* bool: present = true */
    OPTION_ON_OFF, /* bool: "on" or "off" */
    OPTION_TEXT,   /* const char * */
    OPTION_CHOICE, /* const char *, one of choices "a|b|c" */
    OPTION_UINT,   /* uint64_t in [min, max] */
    OPTION_REAL,   /* double in [min, max] */
    OPTION_LIST,   /* struct text_list: split at commas, greedy, repeatable */
    OPTION_REPEAT  /* struct text_list: one value each time, not split */
};

struct text_list {
    char **items;
    size_t n;
};
void text_list_deinit(struct text_list *l);

struct option_spec {
    const char *name; /* "--sizes" */
    char letter;      /* 'q' for -q; 0: none */
    enum option_kind kind;
    void *target;
    double min;
    double max;
    const char *choices;
    const char *value; /* "N", "FILE" in help */
    const char *help;  /* with the default */
};

struct command {
    const char *name;
    const char *summary;
    const char *usage;                 /* after "llmsched <name> " */
    const char *examples;              /* shown first in --help */
    int (*run)(int argc, char **argv); /* argv[0] = the subcommand's name */
};

/*
 * Fills the targets. Positional arguments go to *positional (NULL: none allowed). *help is set when
 * -h or --help stands anywhere (then nothing else is checked).
 * Errors: USAGE, with the nearest option for a misspelt one.
 */
enum status options_parse(const struct option_spec *specs, size_t n_specs, int argc, char **argv,
                          struct text_list *positional, bool *help, struct error *err) MUST_USE;

/* Usage, examples, and a line per option; to stdout. */
void options_print_help(const struct command *command, const struct option_spec *specs,
                        size_t n_specs);

/* The candidate nearest to word by edit distance, or NULL when none is near. */
const char *options_nearest(const char *word, const char *const *candidates, size_t n);

#endif
