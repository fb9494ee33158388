/*
 * rng.h - random numbers: a counter-based function for sampling, a sequential stream for workloads.
 *
 * Counter-based: rng_at(key, counter) is a pure function, so a token's draw depends on the
 * request's key and the position only, never on batch mates, threads or order (docs: batch
 * invariance). Stream: SplitMix64, one stream per purpose, seeded by rng_stream().
 */
#ifndef LLMSCHED_BASE_RNG_H
#define LLMSCHED_BASE_RNG_H

#include <stdint.h>

/* 64 well-mixed bits of (key, counter): two rounds of the SplitMix64 finaliser (Steele et al.,
 * OOPSLA 2014). */
uint64_t rng_at(uint64_t key, uint64_t counter);

/* Uniform in [0, 1) with 53 bits, from 64 random bits. */
double rng_unit(uint64_t bits);

/* hash(seed, index): the sample_key of request `index` in a bench with `seed`. */
uint64_t rng_key(uint64_t seed, uint64_t index);

/* The sample_key of one of the `n` choices of an API request with `seed`. Choice 0 has the seed
 * itself, so that n = 1 gives the first of n = 2. */
uint64_t sample_key_of_choice(uint64_t seed, uint32_t choice);

struct rng {
    uint64_t state;
};

/* An independent stream for one purpose of one seed (purpose: a small constant or a hash). */
struct rng rng_stream(uint64_t seed, uint64_t purpose);
uint64_t rng_next(struct rng *r);
/* Uniform in [0, bound), without bias; bound >= 1. */
uint64_t rng_below(struct rng *r, uint64_t bound);
/* Uniform in [lo, hi], inclusive. */
uint64_t rng_between(struct rng *r, uint64_t lo, uint64_t hi);
double rng_real(struct rng *r);
/* Standard normal (Box and Muller). */
double rng_normal(struct rng *r);

#endif
