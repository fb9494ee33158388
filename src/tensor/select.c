/* select.c - which instruction sets this machine can run, and the choice among them. */
#include <stdio.h>
#include <string.h>

#include "tensor/isa_int.h"

static bool has_always(void)
{
    return true;
}

#if defined(__x86_64__)
/* The builtin asks CPUID and, by XGETBV, whether the system saves the wide registers. */
static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static bool has_avx512(void)
{
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw");
}

static bool has_avx512_vnni(void)
{
    return has_avx512() && __builtin_cpu_supports("avx512vnni");
}

static bool has_avx512_bf16(void)
{
    return has_avx512_vnni() && __builtin_cpu_supports("avx512bf16");
}
#endif

/* Best first. */
static const struct isa_row {
    const struct tensor_ops *ops;
    bool (*supported)(void);
} isa_rows[] = {
#if defined(__x86_64__)
    {&tensor_ops_avx512_bf16, has_avx512_bf16}, {&tensor_ops_avx512_vnni, has_avx512_vnni},
    {&tensor_ops_avx512, has_avx512},           {&tensor_ops_avx2, has_avx2},
#endif
    {&tensor_ops_reference, has_always},
};

#define ISA_ROWS (sizeof isa_rows / sizeof isa_rows[0])

uint32_t tensor_available(const struct tensor_ops *out[], uint32_t capacity)
{
    uint32_t n = 0;
    for (size_t i = 0; i < ISA_ROWS; i++) {
        if (isa_rows[i].supported()) {
            if (n < capacity) {
                out[n] = isa_rows[i].ops;
            }
            n++;
        }
    }
    return n;
}

enum status tensor_select(const char *isa, const struct tensor_ops **out, struct error *err)
{
    const struct tensor_ops *all[ISA_ROWS] = {NULL};
    uint32_t n = tensor_available(all, ISA_ROWS);
    if (isa == NULL) {
        *out = all[0];
        return STATUS_OK;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(isa, all[i]->isa) == 0) {
            *out = all[i];
            return STATUS_OK;
        }
    }
    char names[64] = "";
    for (uint32_t i = 0, used = 0; i < n; i++) {
        used += (uint32_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "",
                                   all[i]->isa);
    }
    return error_set(err, STATUS_UNSUPPORTED, -1,
                     "instruction set \"%s\": this machine and build have %s", isa, names);
}
