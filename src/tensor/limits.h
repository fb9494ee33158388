/*
 * limits.h - what this machine can do at best, measured and not looked up: the two sides of a
 * roofline. A figure of a run is worth its share of these, taken just before and just after it.
 */
#ifndef LLMSCHED_TENSOR_LIMITS_H
#define LLMSCHED_TENSOR_LIMITS_H

#include "tensor/tensor.h"

struct tensor_limits {
    double multiply_adds[TENSOR_DTYPES]; /* a second, all threads, operands in registers */
    double read_bytes;                   /* a second, all threads, from memory */
};

/* Takes about `seconds`, the best of several rounds of each. Reads an array of
 * TENSOR_LIMITS_READ_BYTES, far beyond the caches, which it frees again. Errors: NO_MEMORY. */
#define TENSOR_LIMITS_READ_BYTES ((size_t)512 << 20)
enum status tensor_limits_measure(const struct tensor_ops *ops, struct pool *pool, double seconds,
                                  struct tensor_limits *out, struct error *err) MUST_USE;

/* The better of two measurements, side by side. */
struct tensor_limits tensor_limits_best(const struct tensor_limits *a,
                                        const struct tensor_limits *b);

#endif
