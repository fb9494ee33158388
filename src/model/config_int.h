/* config_int.h - shared by config*.c only. */
#ifndef LLMSCHED_MODEL_CONFIG_INT_H
#define LLMSCHED_MODEL_CONFIG_INT_H

#include "model/config.h"

/* The values that every family starts from, before a file is read. */
void config_defaults(const struct arch *arch, struct model_config *c);

/* Every bound that config.h promises; the message names path and quantity. */
enum status config_check(const struct model_config *c, const char *path,
                         struct error *err) MUST_USE;

/* Adds an end-of-sequence id unless it is there. Errors: BAD_MODEL when the list is full. */
enum status config_add_eos(struct model_config *c, int32_t id, const char *path,
                           struct error *err) MUST_USE;

/* Adds the eos ids of a generation_config.json. */
enum status config_extend_eos(const char *text, size_t len, const char *path,
                              struct model_config *m, struct error *err) MUST_USE;

#endif
