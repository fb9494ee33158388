/*
 * policy_params.h - a policy's typed parameter table: defaults, parsing, checks, printing.
 *
 * Every table row has a range; a text outside it is a USAGE error that names the range. Order is
 * always that of the table. Alloc: only the strbuf functions.
 */
#ifndef LLMSCHED_SCHED_POLICY_PARAMS_H
#define LLMSCHED_SCHED_POLICY_PARAMS_H

#include <stdint.h>

#include "base/status.h"
#include "base/strbuf.h"
#include "core/policy.h"

/* Every value at its default; unused places 0. */
struct policy_params policy_params_default(const struct policy_class *class);

/* One parameter from text: "64", "0.5", "0.5s", "500ms" (seconds), "true|false|on|off|yes|no|1|0",
 * a choice. Errors: USAGE for an unknown name (the known ones and the nearest are listed), for text
 * that is no number, and outside the range. */
enum status policy_params_set(const struct policy_class *class, struct policy_params *params,
                              const char *name, const char *text, struct error *err) MUST_USE;

/* "name=value", or "name=value:name=value" as in a labelled variant (big=naive:batch_size=16).
 * Errors: as policy_params_set; params is unchanged then. */
enum status policy_params_parse(const struct policy_class *class, struct policy_params *params,
                                const char *text, struct error *err) MUST_USE;

/* Ranges again (values may not have come from text), then the class's own check. USAGE. */
enum status policy_params_check(const struct policy_class *class,
                                const struct policy_params *params, struct error *err) MUST_USE;

/* "batch_size=4 timeout=0.5 pad=true": all of them, in table order, shortest text that reads back
 * to the same value. */
void policy_params_print(const struct policy_class *class, const struct policy_params *params,
                         struct strbuf *out);

/* For tables (`info schedulers`, docs): "int", "real", "bool", "choice", "seconds"; one value as
 * text; the range as text ("1..1024", "true|false", "backlog|always"). */
const char *param_type_name(enum param_type type);
void param_value_text(const struct param_spec *spec, double value, struct strbuf *out);
void param_range_text(const struct param_spec *spec, struct strbuf *out);

#endif
