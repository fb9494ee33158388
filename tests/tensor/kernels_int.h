/*
 * kernels_int.h - what the files of bench_kernels share: the model's shapes and random values, the
 * check of a product, the other operations' table, and the library to compare with.
 */
#ifndef LLMSCHED_TESTS_TENSOR_KERNELS_INT_H
#define LLMSCHED_TESTS_TENSOR_KERNELS_INT_H

#include "tensor/tensor.h"

#define MAX_ROWS   512
#define WIDEST_IN  1536
#define WIDEST_OUT 49152

/* Products of SmolLM2-135M, in the order of the model; the last one once, the others per layer. */
#define LAYERS     30
#define N_SHAPES   5
#define N_MATRICES (LAYERS * (N_SHAPES - 1) + 1)

struct shape {
    const char *name;
    uint32_t n_out, n_in;
};
extern const struct shape shapes[N_SHAPES];

uint32_t shape_of(uint32_t matrix);

void fail(const char *what) __attribute__((noreturn));
/* 64-byte aligned; ends the program where there is no memory. */
void *must_alloc(size_t bytes);

/* Row `row` of every matrix, WIDEST_IN long: one of WEIGHT_ROWS, which is enough. */
#define WEIGHT_ROWS 7
const float *weight_row(uint32_t row);
/* Row t of every product's inputs. */
void fill_inputs(float *out, uint32_t n, uint32_t t);
/* To nearest, ties to even; x is finite. */
float to_bf16(float x);

/* The outputs of a product that are looked at. */
#define SAMPLE_OUTS 64
#define SAMPLE_ROWS 8

struct sample {
    uint32_t n_rows;
    uint32_t rows[SAMPLE_ROWS];
    uint32_t outs[SAMPLE_OUTS];
};
struct sample sample_of(const struct shape *s, uint32_t n_rows);
/* |got - want| as a share of the rounding bound of a sum of n_in terms, whose sizes sum up to
 * `magnitude`; infinite when it is not a number. */
double share_of_bound(double got, double want, double magnitude, uint32_t n_in);

/* The largest error of a product's sample, y: [n_rows, n_out], against the reference instruction
 * set on the same weights and inputs, both rounded as `ops` rounds them. */
double reference_error(const struct tensor_ops *ops, enum tensor_dtype dtype, const struct shape *s,
                       uint32_t n_rows, const float *y);

/* Prints the table of all operations but the products; false: one is not what the reference gives.
 */
bool bench_row_ops(const struct tensor_ops *ops);

/* Another library's products, of the same shapes in its own packing. */
struct peer_model;

struct peer {
    /* Sees to it that the library uses so many threads; may start the program anew. */
    void (*set_threads)(uint32_t n_threads, char **argv);
    /* Name, version and instruction set. */
    void (*describe)(char *out, size_t size);
    /* NULL: it has no such product on this machine. */
    struct peer_model *(*create)(enum tensor_dtype dtype);
    void (*destroy)(struct peer_model *m);
    /* For products of so many rows with outputs y: [n_rows, n_out]. */
    void (*prepare)(struct peer_model *m, uint32_t n_rows, float *y);
    void (*multiply)(const struct peer_model *m, uint32_t matrix);
    /* The largest error of a sample of the last product, which was of this shape. */
    double (*error)(const struct peer_model *m, uint32_t shape);
    /* What does its work at the rows prepared for. */
    const char *(*kernel)(const struct peer_model *m, uint32_t shape);
};

/* NULL: built without it. */
extern const struct peer *const peer_onednn;

#endif
