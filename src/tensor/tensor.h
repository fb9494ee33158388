/*
 * tensor.h - the few operations a transformer needs, once per instruction set, chosen at start.
 *
 * Batch-invariant arithmetic: every output element is computed by one fixed sequence of operations
 * that depends on its own inputs and the sizes C, K, D only - not on how many rows stand beside it,
 * how they are cut, or how many threads run. So a request's logits are the same bits alone and in
 * any batch. Rules that keep it so: one accumulator per output and lane walks K upwards; tails use
 * the main loop's operation; reductions over lanes have a fixed tree; FMA is explicit.
 *
 * Letters: T rows, K inputs, N outputs, D head size (docs/MODEL.md). All matrices row-major.
 */
#ifndef LLMSCHED_TENSOR_TENSOR_H
#define LLMSCHED_TENSOR_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"
#include "tensor/bf16.h"
#include "tensor/pool.h"

enum tensor_dtype { TENSOR_F32, TENSOR_BF16, TENSOR_INT8 };
#define TENSOR_DTYPES 3

/* "f32", "bf16", "int8". */
const char *tensor_dtype_name(enum tensor_dtype dtype);
/* False if there is none of that name. */
bool tensor_dtype_find(const char *name, enum tensor_dtype *out);

/* Inputs of one step of a product: as many as fit four bytes of weights. Matrices of a dtype have a
 * multiple of them. */
static inline uint32_t tensor_step_inputs(enum tensor_dtype dtype)
{
    return 1U << dtype;
}

/* int8: so many inputs share a scale, of weights as of an operand row; the last group of a row may
 * be shorter. An outlier costs precision in its own group alone. */
#define TENSOR_INT8_GROUP 64
/* Levels of weights on either side of 0, and of operand rows from the least value of a group, or 0,
 * to the largest; before rounding, which adds one to the latter at most. */
#define TENSOR_INT8_TOP    127
#define TENSOR_INT8_LEVELS 196
/* AVX2, and AVX-512 without VNNI, sum four products in 16 bits: of inputs 0, 1, 4 and 5 or 2, 3, 6
 * and 7 of eight. So the positive weights of four, and the negative ones, sum to no more than FOUR
 * levels; rounding adds half a level to each. */
#define TENSOR_INT8_FOUR 164
_Static_assert((TENSOR_INT8_LEVELS + 1) * (TENSOR_INT8_FOUR + 2) <= INT16_MAX, "products fit");
/* 4-byte words before the values of a group of an operand row: scale and offset. */
#define TENSOR_INT8_HEAD 2
/* Groups whose largest size is below this count as zeros: 1 / scale could be infinite. */
#define TENSOR_INT8_LEAST 1e-36f

static inline uint32_t tensor_groups(enum tensor_dtype dtype, uint32_t n_in)
{
    return dtype == TENSOR_INT8 ? (n_in + TENSOR_INT8_GROUP - 1) / TENSOR_INT8_GROUP : 0;
}

/* Keys of one attention tile; KV blocks are as long, so tiles lie at absolute multiples. */
#define TENSOR_KV_TILE 16

/*
 * A weight matrix W[N, K] in panels of `panel` outputs, each panel step by step; the last panel is
 * padded with zeros. With n the panel's first output:
 *
 *   f32   data[k][j]         = W[n + j][k]
 *   bf16  data[k / 2][j][2]  the same, rounded to nearest even, pairs of inputs side by side
 *   int8  data[k / 4][j][4]  round(W[n + j][k] / scale); before every group a word for each of
 *                            its outputs: the scale, rounded up to bf16, in the high half, the
 *                            sum of the group's values in the low half
 */
struct packed_matrix {
    enum tensor_dtype dtype;
    uint32_t n_out;
    uint32_t n_in;
    uint32_t panel;
    void *data; /* 64-byte aligned */
    size_t bytes;
    float *bias;    /* [n_out rounded up to panel], NULL none */
    bool is_placed; /* data and bias lie in memory of another owner, else the matrix owns them */
};

/* Steps of a panel, with those that are heads of groups. A step is `panel` words of 4 bytes. */
static inline size_t packed_steps(enum tensor_dtype dtype, uint32_t n_in)
{
    return (size_t)n_in / tensor_step_inputs(dtype) + tensor_groups(dtype, n_in);
}

/* Where W[row][k] stands in data, in elements. */
static inline size_t packed_index(const struct packed_matrix *m, size_t row, size_t k)
{
    size_t inputs = tensor_step_inputs(m->dtype);
    size_t lane = row % m->panel;
    size_t scales = m->dtype == TENSOR_INT8 ? k / TENSOR_INT8_GROUP + 1 : 0;
    size_t step = (row - lane) / m->panel * packed_steps(m->dtype, m->n_in) + k / inputs + scales;
    return (step * m->panel + lane) * inputs + k % inputs;
}

/* int8: where the word before W[row][k]'s group stands in data, in words. */
static inline size_t packed_head_index(const struct packed_matrix *m, size_t row, size_t k)
{
    size_t lane = row % m->panel;
    size_t step = (row - lane) / m->panel * packed_steps(m->dtype, m->n_in) +
                  k / TENSOR_INT8_GROUP * (TENSOR_INT8_GROUP / 4 + 1);
    return step * m->panel + lane;
}

/* Such a word's two halves. */
static inline float packed_head_scale(uint32_t head)
{
    return bf16_to_f32((uint16_t)(head >> 16));
}

static inline int32_t packed_head_sum(uint32_t head)
{
    return (int16_t)(head & 0xFFFFU);
}

/*
 * T rows as a product takes them. Borrowed. int8: every group begins with its scale (f32) and an
 * offset (int16, then 16 bits of 0), then come bytes u = round(x / scale) - offset. The sum of a
 * group's weights takes the offset in again, and 0 is kept exactly:
 *
 *   sum_k x[k] W[k] = sum_groups scale_x scale_w (offset sum_k q_w[k] + sum_k u[k] q_w[k])
 */
struct operand {
    const void *data;
    size_t stride; /* bytes from row to row, a multiple of 4 */
};

/* Products with weights of one dtype. */
struct tensor_product {
    /* y[t][n] = bias[n] + sum_k x[t][k] * W[n][k] for panels [panel_begin, panel_end) and rows
     * [row, row + n_rows) of x and y. y: [T, ldy]. */
    void (*matmul)(float *y, size_t ldy, const struct operand *x, uint32_t row, uint32_t n_rows,
                   const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end);
    /* f32[n] as an operand row, four bytes a step, in at most tensor_operand_bytes. A value that is
     * not finite makes products that are not either. NULL: rows of f32 are taken as they are. */
    void (*pack_row)(void *out, const float *x, uint32_t n);
};

/* Rows, and query heads (rows times heads), that one pass over keys and values may serve. */
#define TENSOR_ATTEND_ROWS    2
#define TENSOR_ATTEND_QUERIES 6

/*
 * Query rows of consecutive positions of one sequence against one KV head, each for `group` query
 * heads that share it. Row r attends to positions first .. last + r (inclusive, absolute); tile b
 * holds positions b*16 ... What stands in the tiles beyond is not read.
 *
 *   k_tiles[b]: [D][TENSOR_KV_TILE]  (key j of the tile is column j)
 *   v_tiles[b]: [TENSOR_KV_TILE][D]
 */
struct tensor_attention {
    float *out; /* group heads of D; row r at + r * ld_out */
    const float *q;
    size_t ld_out;
    size_t ld_q;
    uint32_t n_rows;
    uint32_t group;
    uint32_t head_size; /* D */
    float scale;
    enum tensor_dtype kv; /* of the tiles: f32 or bf16 */
    const void *const *k_tiles;
    const void *const *v_tiles;
    uint32_t first;
    uint32_t last;
    float *scratch; /* TENSOR_ATTEND_QUERIES * (last + n_rows + TENSOR_KV_TILE) floats */
};

/* One instruction set's kernels. Every kernel is single-threaded over the range it is given; the
 * wrappers below split ranges over the pool. */
struct tensor_ops {
    const char *isa; /* "reference", "avx2", "avx512", "avx512-vnni", "avx512-bf16" */
    uint32_t panel;  /* outputs per panel */
    struct tensor_product product[TENSOR_DTYPES]; /* by dtype of the weights */
    uint32_t side_panels[2]; /* that products of one, of two rows take side by side */

    /* y = x / sqrt(mean(x^2) + eps) * weight, one row of C. */
    void (*rms_norm)(float *y, const float *x, const float *weight, uint32_t n, float eps);
    /* y = (x - mean) / sqrt(var + eps) * weight + bias, one row; bias may be NULL. */
    void (*layer_norm)(float *y, const float *x, const float *weight, const float *bias, uint32_t n,
                       float eps);
    /* x += y */
    void (*add)(float *x, const float *y, uint32_t n);
    /* gate = silu(gate) * up, and the plain activations in place. */
    void (*silu_mul)(float *gate, const float *up, uint32_t n);
    void (*gelu_tanh)(float *x, uint32_t n);
    void (*gelu_erf)(float *x, uint32_t n);
    void (*relu)(float *x, uint32_t n);
    void (*silu)(float *x, uint32_t n);
    /* Rotate half: pairs (x[i], x[i + D/2]) by cos[i], sin[i], i < D/2; n_heads heads of D. */
    void (*rope)(float *x, uint32_t n_heads, uint32_t head_size, const float *cos,
                 const float *sin);

    void (*attend)(const struct tensor_attention *a);

    /* What this instruction set can do at best, for limits: at least n multiply-adds as the
     * products of a dtype make them, but all in registers; returns how many. */
    uint64_t (*multiply_add)(enum tensor_dtype dtype, uint64_t n);
    /* Reads n floats (a multiple of 64) front to back; returns what came of them. */
    float (*read)(const float *x, size_t n);
};

/* The best ISA of this machine, or the one named (NULL: best).
 * UNSUPPORTED names what the machine has. */
enum status tensor_select(const char *isa, const struct tensor_ops **out,
                          struct error *err) MUST_USE;
/* All ISAs this machine can run, best first; returns how many. */
uint32_t tensor_available(const struct tensor_ops *out[], uint32_t capacity);

/* The dtype a matrix of n_in inputs is kept in: the one wanted, or f32 where n_in is no multiple of
 * a step. */
enum tensor_dtype tensor_dtype_for(enum tensor_dtype wanted, uint32_t n_in);

/* Bytes of a matrix with its bias, a multiple of 64. */
uint64_t packed_memory(const struct tensor_ops *ops, enum tensor_dtype dtype, uint64_t n_out,
                       uint32_t n_in);

/*
 * Packing, row by row as a file is read: begin allocates, or takes `memory`, packed_memory() bytes
 * of zeros that outlive the matrix, 64-byte aligned (many matrices in one stretch share huge
 * pages); put_rows places f32 rows [row, row + n) (of K columns) into panels, put_bias the bias.
 */
enum status packed_begin(struct packed_matrix *m, const struct tensor_ops *ops,
                         enum tensor_dtype dtype, uint32_t n_out, uint32_t n_in, bool with_bias,
                         void *memory, struct error *err) MUST_USE;
void packed_put_rows(struct packed_matrix *m, uint32_t row, uint32_t n, const float *rows);
void packed_put_bias(struct packed_matrix *m, uint32_t first, uint32_t n, const float *bias);
void packed_deinit(struct packed_matrix *m);
/* Row `row` of W back as f32[K]: the embedding look-up of a tied model reads panels. */
void packed_get_row(const struct packed_matrix *m, uint32_t row, float *out);

/* Bytes to set aside for an operand row of K inputs; 0 where rows of f32 are taken as they are. */
size_t tensor_operand_bytes(const struct tensor_ops *ops, enum tensor_dtype dtype, uint32_t K);

/* y[T, N] = x[T, K] W^T + bias, split over the pool by panels. */
void tensor_matmul(const struct tensor_ops *ops, struct pool *pool, float *y, size_t ldy,
                   const struct operand *x, uint32_t n_rows, const struct packed_matrix *w);

#endif
