/* registry.c - see registry.h. To add a policy: its file, and its line in POLICIES. */
#include "sched/registry.h"

#include <assert.h>
#include <string.h>

#include "sched/nearest_int.h"

/* X(name): the file defines `const struct policy_class policy_<name>`. The order is that of help
 * texts and reports. */
#define POLICIES(X)                                                                                \
    X(naive)                                                                                       \
    X(dynamic)                                                                                     \
    X(continuous)

#define DECLARE(name) extern const struct policy_class policy_##name;
POLICIES(DECLARE)
#undef DECLARE

#define ADDRESS(name) &policy_##name,
static const struct policy_class *const policies[] = {POLICIES(ADDRESS)};
#undef ADDRESS

#define N_POLICIES ((uint32_t)(sizeof policies / sizeof policies[0]))

uint32_t registry_count(void)
{
    return N_POLICIES;
}

const struct policy_class *registry_at(uint32_t idx)
{
    assert(idx < N_POLICIES);
    return policies[idx];
}

enum status registry_find(const char *name, const struct policy_class **out, struct error *err)
{
    struct strbuf known = {0};
    const char *nearest = "";
    uint32_t best = UINT32_MAX;
    for (uint32_t i = 0; i < N_POLICIES; i++) {
        if (strcmp(policies[i]->name, name) == 0) {
            *out = policies[i];
            strbuf_deinit(&known);
            return STATUS_OK;
        }
        strbuf_printf(&known, "%s%s", i > 0 ? ", " : "", policies[i]->name);
        uint32_t d = nearest_distance(name, policies[i]->name);
        if (d < best) {
            best = d;
            nearest = policies[i]->name;
        }
    }
    bool close = nearest_is_close(nearest, best);
    enum status s = error_set(err, STATUS_USAGE, -1, "no scheduler '%.80s'%s%s%s; there are: %s",
                              name, close ? " (did you mean '" : "", close ? nearest : "",
                              close ? "'?)" : "", strbuf_text(&known));
    strbuf_deinit(&known);
    return s;
}
