/* number.c - see number_int.h. */
#include "number_int.h"

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static locale_t c_locale;
static pthread_once_t c_locale_once = PTHREAD_ONCE_INIT;

static void make_c_locale(void)
{
    c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
}

locale_t number_locale_begin(void)
{
    pthread_once(&c_locale_once, make_c_locale);
    return c_locale != (locale_t)0 ? uselocale(c_locale) : (locale_t)0;
}

void number_locale_end(locale_t saved)
{
    if (saved != (locale_t)0) {
        uselocale(saved);
    }
}

void number_append(struct strbuf *b, double value)
{
    if (isnan(value)) {
        return;
    }
    locale_t saved = number_locale_begin();
    char text[40];
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value) { /* 17 digits always do */
            break;
        }
    }
    number_locale_end(saved);
    strbuf_puts(b, text);
}

/* No blanks, hexadecimal, "nan" or "infinity", all of which strtod would take. */
static bool looks_decimal(const char *text)
{
    return text[0] != '\0' && strspn(text, "0123456789+-.eE") == strlen(text);
}

bool number_parse_real(const char *text, double *value)
{
    if (!looks_decimal(text)) {
        return false;
    }
    locale_t saved = number_locale_begin();
    char *end;
    double v = strtod(text, &end);
    number_locale_end(saved);
    if (*end != '\0' || !isfinite(v)) {
        return false;
    }
    *value = v;
    return true;
}

/* Integers up to here are exact as doubles. */
#define EXACT_DOUBLE_MAX 9007199254740992.0

bool number_parse_count(const char *text, uint64_t *value)
{
    if (text[0] != '\0' && strspn(text, "0123456789") == strlen(text)) {
        errno = 0;
        unsigned long long v = strtoull(text, NULL, 10);
        if (errno != 0) {
            return false;
        }
        *value = v;
        return true;
    }
    double real;
    if (!number_parse_real(text, &real) || !(real >= 0.0 && real <= EXACT_DOUBLE_MAX) ||
        real != floor(real)) {
        return false;
    }
    *value = (uint64_t)real;
    return true;
}
