/* rng.c - see rng.h. */
#include "base/rng.h"

#include <assert.h>
#include <math.h>

#define GOLDEN_GAMMA 0x9E3779B97F4A7C15ULL

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
    return z ^ (z >> 31);
}

uint64_t rng_at(uint64_t key, uint64_t counter)
{
    return mix(mix(key + GOLDEN_GAMMA * (counter + 1)) ^ key);
}

double rng_unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1.0p-53;
}

uint64_t rng_key(uint64_t seed, uint64_t index)
{
    return rng_at(mix(seed + GOLDEN_GAMMA), index);
}

uint64_t sample_key_of_choice(uint64_t seed, uint32_t choice)
{
    return choice == 0 ? seed : rng_key(seed, choice);
}

struct rng rng_stream(uint64_t seed, uint64_t purpose)
{
    return (struct rng){.state = rng_at(mix(seed ^ 0xA0761D6478BD642FULL), purpose)};
}

uint64_t rng_next(struct rng *r)
{
    r->state += GOLDEN_GAMMA;
    return mix(r->state);
}

uint64_t rng_below(struct rng *r, uint64_t bound)
{
    assert(bound >= 1);
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
    uint64_t x;
    do {
        x = rng_next(r);
    } while (x >= limit);
    return x % bound;
}

uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi)
{
    assert(lo <= hi && hi - lo < UINT64_MAX);
    return lo + rng_below(r, hi - lo + 1);
}

double rng_real(struct rng *r)
{
    return rng_unit(rng_next(r));
}

double rng_normal(struct rng *r)
{
    double u = 1.0 - rng_real(r);
    double v = rng_real(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}
