/*
 * number_int.h - numbers to text and back, with '.' whatever LC_NUMERIC says.
 */
#ifndef LLMSCHED_REPORT_NUMBER_INT_H
#define LLMSCHED_REPORT_NUMBER_INT_H

#include <locale.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/strbuf.h"

/* Between the two, this thread prints and reads numbers as the C locale does. */
locale_t number_locale_begin(void);
void number_locale_end(locale_t saved);

/* The shortest text that reads back as the same double; nothing for NaN, which files show as an
 * empty cell. Infinity is written "inf": only texts have it. */
void number_append(struct strbuf *b, double value);

/* The whole of text must be one finite number. */
bool number_parse_real(const char *text, double *value);
/* A count; also "4.0", which spreadsheets and pandas make of 4. */
bool number_parse_count(const char *text, uint64_t *value);

#endif
