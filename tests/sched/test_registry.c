/* test_registry.c - look-up, and the typed parameter tables: parsing, ranges, messages, printing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sched/registry.h"

static const struct policy_class *find(const char *name)
{
    const struct policy_class *class = NULL;
    struct error err = ERROR_INIT;
    assert_int_equal(registry_find(name, &class, &err), STATUS_OK);
    return class;
}

static void test_lookup(void **state)
{
    (void)state;
    assert_true(registry_count() >= 3);
    for (uint32_t i = 0; i < registry_count(); i++) {
        assert_ptr_equal(find(registry_at(i)->name), registry_at(i));
    }
    static const struct {
        const char *name;
        const char *message;
    } rows[] = {
        {"dinamic", "no scheduler 'dinamic' (did you mean 'dynamic'?); there are: naive, dynamic, "
                    "continuous"},
        {"fifo", "no scheduler 'fifo'; there are: naive, dynamic, continuous"},
        {"", "no scheduler ''; there are: naive, dynamic, continuous"},
        {"Naive", "no scheduler 'Naive' (did you mean 'naive'?); there are: naive, dynamic, "
                  "continuous"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct error err = ERROR_INIT;
        const struct policy_class *class = NULL;
        assert_int_equal(registry_find(rows[i].name, &class, &err), STATUS_USAGE);
        assert_null(class);
        /* A prefix: a reader's own policy may follow in the list. */
        assert_memory_equal(err.message, rows[i].message, strlen(rows[i].message));
    }
}

/* Every table of the registry: defaults in range, and print -> parse gives the same values. */
static void test_tables_are_sound(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < registry_count(); i++) {
        const struct policy_class *class = registry_at(i);
        struct error err = ERROR_INIT;
        struct policy_params params = policy_params_default(class);
        assert_true(class->n_params <= POLICY_MAX_PARAMS);
        assert_non_null(class->summary);
        assert_int_equal(policy_params_check(class, &params, &err), STATUS_OK);
        struct strbuf text = {0};
        policy_params_print(class, &params, &text);
        for (size_t c = 0; c < text.len; c++) {
            text.data[c] = text.data[c] == ' ' ? ':' : text.data[c];
        }
        struct policy_params again = {{0}};
        assert_int_equal(policy_params_parse(class, &again, strbuf_text(&text), &err), STATUS_OK);
        assert_memory_equal(&again, &params, sizeof params);
        strbuf_deinit(&text);
        for (uint32_t p = 0; p < class->n_params; p++) {
            struct strbuf range = {0};
            param_range_text(&class->params[p], &range);
            assert_true(range.len > 0 && class->params[p].help != NULL);
            strbuf_deinit(&range);
        }
    }
}

static void test_print(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        const char *set;
        const char *text;
    } rows[] = {
        {"naive", "", "batch_size=4 timeout=0.5 pad=true"},
        {"naive", "pad=off:timeout=250ms:batch_size=1024",
         "batch_size=1024 timeout=0.25 pad=false"},
        {"dynamic", "grow=always:timeout=0.1:memory_threshold=0.3",
         "batch_size=8 min_batch_size=4 max_batch_size=32 timeout=0.1 max_time_wait=2 "
         "memory_threshold=0.3 grow=always pad=true"},
        {"continuous", "watermark=0.025",
         "token_budget=0 max_seqs=0 long_prefill_threshold=0 watermark=0.025 reserve_full=true"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct policy_class *class = find(rows[i].policy);
        struct policy_params params = policy_params_default(class);
        struct strbuf text = {0};
        assert_int_equal(policy_params_parse(class, &params, rows[i].set, NULL), STATUS_OK);
        policy_params_print(class, &params, &text);
        assert_string_equal(strbuf_text(&text), rows[i].text);
        strbuf_deinit(&text);
    }
}

static void test_values(void **state)
{
    (void)state;
    static const struct {
        const char *policy;
        const char *name;
        const char *text;
        double value; /* -1: refused */
        const char *message;
    } rows[] = {
        {"naive", "batch_size", "1", 1, NULL},
        {"naive", "batch_size", "1024", 1024, NULL},
        {"naive", "batch_size", "1e2", 100, NULL},
        {"naive", "batch_size", "0", -1, "naive.batch_size=0: want a whole number in 1..1024"},
        {"naive", "batch_size", "1025", -1,
         "naive.batch_size=1025: want a whole number in 1..1024"},
        {"naive", "batch_size", "-4", -1, "naive.batch_size=-4: want a whole number in 1..1024"},
        {"naive", "batch_size", "4.5", -1, "naive.batch_size=4.5: want a whole number in 1..1024"},
        {"naive", "batch_size", "", -1, "naive.batch_size=: want a whole number in 1..1024"},
        {"naive", "batch_size", "4x", -1, "naive.batch_size=4x: want a whole number in 1..1024"},
        {"naive", "batch_size", " 4", -1, "naive.batch_size= 4: want a whole number in 1..1024"},
        {"naive", "batch_size", "0x10", -1,
         "naive.batch_size=0x10: want a whole number in 1..1024"},
        {"naive", "batch_size", "nan", -1, "naive.batch_size=nan: want a whole number in 1..1024"},
        {"naive", "batch_size", "1e999", -1,
         "naive.batch_size=1e999: want a whole number in 1..1024"},
        {"naive", "batch_size", "4s", -1, "naive.batch_size=4s: want a whole number in 1..1024"},
        {"naive", "timeout", "0", 0, NULL},
        {"naive", "timeout", "3600", 3600, NULL},
        {"naive", "timeout", "1.5s", 1.5, NULL},
        {"naive", "timeout", "1500ms", 1.5, NULL},
        {"naive", "timeout", "3600.1", -1, "naive.timeout=3600.1: want seconds in 0..3600"},
        {"naive", "timeout", "-1", -1, "naive.timeout=-1: want seconds in 0..3600"},
        {"naive", "timeout", "inf", -1, "naive.timeout=inf: want seconds in 0..3600"},
        {"naive", "timeout", "1m", -1, "naive.timeout=1m: want seconds in 0..3600"},
        {"naive", "pad", "YES", 1, NULL},
        {"naive", "pad", "0", 0, NULL},
        {"naive", "pad", "2", -1, "naive.pad=2: want one of true|false"},
        {"dynamic", "grow", "always", 1, NULL},
        {"dynamic", "grow", "Backlog", 0, NULL},
        {"dynamic", "grow", "back", -1, "dynamic.grow=back: want one of backlog|always"},
        {"dynamic", "grow", "", -1, "dynamic.grow=: want one of backlog|always"},
        {"dynamic", "memory_threshold", "1", 1, NULL},
        {"dynamic", "memory_threshold", "1.01", -1,
         "dynamic.memory_threshold=1.01: want a number in 0..1"},
        {"naive", "batchsize", "4", -1,
         "naive has no parameter 'batchsize' (did you mean 'batch_size'?); it has: batch_size, "
         "timeout, pad"},
        {"naive", "q", "4", -1, "naive has no parameter 'q'; it has: batch_size, timeout, pad"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const struct policy_class *class = find(rows[i].policy);
        struct policy_params params = policy_params_default(class);
        struct policy_params before = params;
        struct error err = ERROR_INIT;
        enum status s = policy_params_set(class, &params, rows[i].name, rows[i].text, &err);
        if (rows[i].message != NULL) {
            assert_int_equal(s, STATUS_USAGE);
            assert_string_equal(err.message, rows[i].message);
            assert_memory_equal(&params, &before, sizeof params);
            continue;
        }
        assert_int_equal(s, STATUS_OK);
        uint32_t p = 0;
        while (strcmp(class->params[p].name, rows[i].name) != 0) {
            p++;
        }
        assert_true(params.values[p] == rows[i].value);
    }
}

static void test_parse_lists(void **state)
{
    (void)state;
    const struct policy_class *class = find("naive");
    static const char *const bad[] = {
        "batch_size",
        "=4",
        "batch_size=16:pad",
        "batch_size=16:timeout=-1",
        "batch_size=16::x=1",
        "batch_size=0000000000000000000000000000000000000000000000000000000000000000000004",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct policy_params params = policy_params_default(class);
        struct policy_params before = params;
        struct error err = ERROR_INIT;
        assert_int_equal(policy_params_parse(class, &params, bad[i], &err), STATUS_USAGE);
        assert_memory_equal(&params, &before, sizeof params);
        assert_true(strlen(err.message) > 0);
    }
}

static void test_contradictions(void **state)
{
    (void)state;
    static const struct {
        const char *set;
        enum status status;
    } rows[] = {
        {"min_batch_size=8:max_batch_size=8", STATUS_OK},
        {"min_batch_size=9", STATUS_USAGE},
        {"max_batch_size=7", STATUS_USAGE},
        {"min_batch_size=33:batch_size=33", STATUS_USAGE},
    };
    const struct policy_class *class = find("dynamic");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct policy_params params = policy_params_default(class);
        struct error err = ERROR_INIT;
        assert_int_equal(policy_params_parse(class, &params, rows[i].set, &err), STATUS_OK);
        assert_int_equal(policy_params_check(class, &params, &err), rows[i].status);
    }
    struct policy_params params = policy_params_default(class);
    struct error err = ERROR_INIT;
    params.values[0] = 0.5; /* values that never were text are checked, too */
    assert_int_equal(policy_params_check(class, &params, &err), STATUS_USAGE);
    params.values[0] = 8;
    params.values[6] = 2;
    assert_int_equal(policy_params_check(class, &params, &err), STATUS_USAGE);
}

static void test_fill_target(void **state)
{
    (void)state;
    struct policy_params params = policy_params_default(find("naive"));
    assert_int_equal(find("naive")->fill_target(&params), 4);
    params = policy_params_default(find("dynamic"));
    assert_int_equal(find("dynamic")->fill_target(&params), 8);
    assert_int_equal(policy_params_set(find("dynamic"), &params, "grow", "always", NULL),
                     STATUS_OK);
    assert_int_equal(find("dynamic")->fill_target(&params), 32);
    assert_null(find("continuous")->fill_target);
}

/* docs/SCHEDULERS.md has a row for every parameter, with the type and default of the table. */
static void test_docs_agree_with_the_tables(void **state)
{
    (void)state;
    static char text[64 * 1024];
    FILE *f = fopen(SOURCE_DIR "/docs/SCHEDULERS.md", "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    uint32_t n_sections = 0;
    for (uint32_t i = 0; i < registry_count(); i++) {
        const struct policy_class *class = registry_at(i);
        struct strbuf want = {0};
        strbuf_printf(&want, "## %s: ", class->name);
        const char *section = strstr(text, strbuf_text(&want));
        if (section == NULL) { /* a reader's own policy */
            print_message("docs/SCHEDULERS.md has no section on %s\n", class->name);
            strbuf_deinit(&want);
            continue;
        }
        n_sections++;
        for (uint32_t p = 0; p < class->n_params; p++) {
            const struct param_spec *spec = &class->params[p];
            strbuf_clear(&want);
            strbuf_printf(&want, "| `%s` | %s | ", spec->name, param_type_name(spec->type));
            param_value_text(spec, spec->fallback, &want);
            const char *row = strstr(section, strbuf_text(&want));
            const char *end = strstr(section + 1, "\n## ");
            if (row == NULL || (end != NULL && row > end)) {
                fail_msg("docs/SCHEDULERS.md, %s: no row '%s'", class->name, strbuf_text(&want));
            }
        }
        strbuf_deinit(&want);
    }
    assert_true(n_sections >= 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup),      cmocka_unit_test(test_tables_are_sound),
        cmocka_unit_test(test_print),       cmocka_unit_test(test_values),
        cmocka_unit_test(test_parse_lists), cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_fill_target), cmocka_unit_test(test_docs_agree_with_the_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
