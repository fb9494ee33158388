/*
 * prom_text.h - a strict reader of the Prometheus text format 0.0.4, for tests. Refuses what a
 * scraper might let pass: a family without HELP and TYPE before its samples, twice, or torn apart;
 * a series twice; counters that do not end in _total; histograms whose buckets do not ascend, or
 * whose count is not their +Inf bucket; text that is not UTF-8; blanks, and a last line that does
 * not end.
 */
#ifndef LLMSCHED_TESTS_SERVE_PROM_TEXT_H
#define LLMSCHED_TESTS_SERVE_PROM_TEXT_H

#include <math.h>

#include "base/strbuf.h"
#include "base/utf8.h"
#include "test.h"

#define PROM_MAX_SERIES 600

struct prom_series {
    char name[512]; /* with its labels, as written */
    double value;
};

struct prom_text {
    struct prom_series series[PROM_MAX_SERIES];
    uint32_t n;
    uint32_t n_families;
    /* the family that is being read */
    char family[128];
    char kind[16];
    bool has_samples;
    char seen[128][128];
    /* the histogram that is being read */
    double last_bound;
    double last_cumulative;
    double count;
    bool has_sum;
};

static inline bool prom_is_name(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || c == ':';
        if (!letter && (i == 0 || c < '0' || c > '9')) {
            return false;
        }
    }
    return n > 0;
}

/* name="value" pairs up to the closing brace; *le: the bound, where there is one. */
static inline const char *prom_labels(const char *at, double *le)
{
    assert_true(*at == '{');
    do {
        at++;
        size_t n = strcspn(at, "=");
        assert_true(prom_is_name(at, n) && at[n + 1] == '"');
        bool is_le = n == 2 && memcmp(at, "le", 2) == 0;
        at += n + 2;
        if (is_le) {
            char *end;
            *le = strncmp(at, "+Inf", 4) == 0 ? (double)INFINITY : strtod(at, &end);
        }
        while (*at != '"') {
            assert_true(*at != '\0' && *at != '\n');
            if (*at == '\\') {
                at++;
                assert_true(*at == '\\' || *at == '"' || *at == 'n');
            }
            at++;
        }
        at++;
    } while (*at == ',');
    assert_true(*at == '}');
    return at + 1;
}

static inline void prom_end_family(const struct prom_text *t)
{
    if (t->family[0] == '\0') {
        return;
    }
    assert_true(t->kind[0] != '\0' && t->has_samples);
    if (strcmp(t->kind, "histogram") == 0) {
        assert_true(isinf(t->last_bound) && t->has_sum && t->count >= 0.0);
    }
}

static inline void prom_begin_family(struct prom_text *t, const char *name, size_t n)
{
    prom_end_family(t);
    assert_true(prom_is_name(name, n) && n < sizeof t->family);
    for (uint32_t i = 0; i < t->n_families; i++) {
        if (strlen(t->seen[i]) == n && memcmp(t->seen[i], name, n) == 0) {
            fail_msg("family %s comes twice", t->seen[i]);
        }
    }
    assert_true(t->n_families < 128);
    memcpy(t->family, name, n);
    t->family[n] = '\0';
    memcpy(t->seen[t->n_families++], t->family, n + 1);
    t->kind[0] = '\0';
    t->has_samples = false;
    t->last_bound = -1.0;
    t->last_cumulative = 0.0;
    t->count = -1.0;
    t->has_sum = false;
}

static inline void prom_comment(struct prom_text *t, const char *line)
{
    size_t n = strcspn(line + 7, " ");
    const char *rest = line + 7 + n + 1;
    if (strncmp(line, "# HELP ", 7) == 0) {
        prom_begin_family(t, line + 7, n);
        assert_true(strlen(rest) > 0);
        return;
    }
    assert_true(strncmp(line, "# TYPE ", 7) == 0);
    assert_true(strlen(t->family) == n && memcmp(t->family, line + 7, n) == 0);
    assert_true(t->kind[0] == '\0' && !t->has_samples);
    assert_true(strcmp(rest, "counter") == 0 || strcmp(rest, "gauge") == 0 ||
                strcmp(rest, "histogram") == 0);
    snprintf(t->kind, sizeof t->kind, "%s", rest);
    size_t len = strlen(t->family);
    assert_true(strcmp(rest, "counter") != 0 || strcmp(t->family + len - 6, "_total") == 0);
}

static inline void prom_histogram_sample(struct prom_text *t, const char *suffix, double le,
                                         double value)
{
    if (strcmp(suffix, "_bucket") == 0) {
        assert_true(le > t->last_bound && value >= t->last_cumulative && t->count < 0.0);
        t->last_bound = le;
        t->last_cumulative = value;
    } else if (strcmp(suffix, "_count") == 0) {
        assert_true(isinf(t->last_bound) && value == t->last_cumulative);
        t->count = value;
    } else {
        assert_string_equal(suffix, "_sum");
        t->has_sum = true;
    }
}

static inline void prom_sample(struct prom_text *t, const char *line)
{
    size_t n = strcspn(line, "{");
    size_t family = strlen(t->family);
    assert_true(prom_is_name(line, n) && n >= family && memcmp(line, t->family, family) == 0);
    char suffix[32];
    assert_true(n - family < sizeof suffix);
    memcpy(suffix, line + family, n - family);
    suffix[n - family] = '\0';
    double le = -1.0;
    const char *at = prom_labels(line + n, &le);
    assert_true(at[0] == ' ' && at[1] != ' ');
    char *end;
    double value = strtod(at + 1, &end);
    assert_true(*end == '\0' && end > at + 1 && value >= 0.0 && isfinite(value));
    t->has_samples = true;
    assert_true(t->kind[0] != '\0');
    if (strcmp(t->kind, "histogram") == 0) {
        prom_histogram_sample(t, suffix, le, value);
    } else {
        assert_string_equal(suffix, "");
    }
    assert_true(t->n < PROM_MAX_SERIES);
    struct prom_series *s = &t->series[t->n++];
    assert_true((size_t)(at - line) < sizeof s->name);
    memcpy(s->name, line, (size_t)(at - line));
    s->name[at - line] = '\0';
    s->value = value;
    for (uint32_t i = 0; i + 1 < t->n; i++) {
        if (strcmp(t->series[i].name, s->name) == 0) {
            fail_msg("series %s comes twice", s->name);
        }
    }
}

/* Fails the test where the text is not strictly right. `text` is cut into lines. */
static inline void prom_text_read(struct prom_text *t, char *text, size_t n)
{
    memset(t, 0, sizeof *t);
    assert_true(n > 0 && text[n - 1] == '\n' && strlen(text) == n);
    for (size_t i = 0; i < n;) {
        size_t step = utf8_sequence(text + i, n - i);
        assert_true(step > 0);
        i += step;
    }
    for (char *line = text; *line != '\0';) {
        char *end = strchr(line, '\n');
        *end = '\0';
        if (*line == '#') {
            prom_comment(t, line);
        } else {
            prom_sample(t, line);
        }
        line = end + 1;
    }
    prom_end_family(t);
}

/* The series whose name and labels are exactly these. */
static inline double prom_text_get(const struct prom_text *t, const char *name)
{
    for (uint32_t i = 0; i < t->n; i++) {
        if (strcmp(t->series[i].name, name) == 0) {
            return t->series[i].value;
        }
    }
    fail_msg("no series %s", name);
    return (double)NAN;
}

#endif
