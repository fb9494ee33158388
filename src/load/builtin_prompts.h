/* builtin_prompts.h - the texts behind prompts_builtin(). */
#ifndef LLMSCHED_LOAD_BUILTIN_PROMPTS_H
#define LLMSCHED_LOAD_BUILTIN_PROMPTS_H

#include <stddef.h>

extern const char *const builtin_prompts[];
extern const size_t builtin_prompt_count;

#endif
