/*
 * kernels_rows.c - bench_kernels' second table: attention, norms, activations and packing of rows,
 * at SmolLM2-135M's sizes, one row at a time on one thread, each against the reference.
 *
 * A pass is N_ROWS rows with their own data, and for attention their own keys and values, as many
 * as the model has KV heads: these come from memory as they do in a step of decoding.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/monotime.h"
#include "tensor/bf16.h"
#include "tensor/kernels_int.h"

#define N_ROWS      90 /* 30 layers of 3 KV heads */
#define PASSES_NS   50000000
#define MIN_PASSES  5
#define GROUP       3
#define HEAD_SIZE   64
#define QUERY_HEADS 9
#define CHANNELS    576
#define INNER       1536
#define MAX_CONTEXT 1024
#define MAX_TILES   (MAX_CONTEXT / TENSOR_KV_TILE)
#define TILE_FLOATS (HEAD_SIZE * TENSOR_KV_TILE)
#define EPS         1e-5f
/* Relative error beyond which a value is wrong and not rounded: sums here have up to 1536 terms. */
#define ROW_BOUND 1e-4

struct row_op {
    const char *name, *shape;
    uint32_t n;              /* floats of a row; attention: positions */
    double flop, bytes;      /* of a row; 0 flop: not counted */
    enum tensor_dtype dtype; /* of what pack_row makes */
    /* The result is in out, where a copy of x stands before. */
    void (*run)(const struct tensor_ops *ops, const struct row_op *op, float *out, const float *x,
                uint32_t row);
};

/* Data of all rows; those of a row begin at row * INNER. */
static struct {
    float *x, *out;
    float *weight, *bias;
    float cos[HEAD_SIZE / 2], sin[HEAD_SIZE / 2];
    float *keys, *values; /* [N_ROWS][MAX_TILES][TILE_FLOATS] */
    const void *k_tiles[N_ROWS][MAX_TILES], *v_tiles[N_ROWS][MAX_TILES];
    float *scratch;
} room;

static void run_attend(const struct tensor_ops *ops, const struct row_op *op, float *out,
                       const float *x, uint32_t row)
{
    const struct tensor_attention a = {
        .out = out,
        .q = x,
        .n_rows = 1,
        .group = GROUP,
        .head_size = HEAD_SIZE,
        .scale = 0.125f,
        .kv = TENSOR_F32,
        .k_tiles = room.k_tiles[row],
        .v_tiles = room.v_tiles[row],
        .last = op->n - 1,
        .scratch = room.scratch,
    };
    ops->attend(&a);
}

static void run_rms_norm(const struct tensor_ops *ops, const struct row_op *op, float *out,
                         const float *x, uint32_t row)
{
    (void)row;
    ops->rms_norm(out, x, room.weight, op->n, EPS);
}

static void run_layer_norm(const struct tensor_ops *ops, const struct row_op *op, float *out,
                           const float *x, uint32_t row)
{
    (void)row;
    ops->layer_norm(out, x, room.weight, room.bias, op->n, EPS);
}

static void run_silu_mul(const struct tensor_ops *ops, const struct row_op *op, float *out,
                         const float *x, uint32_t row)
{
    (void)row;
    ops->silu_mul(out, x, op->n);
}

static void run_gelu_tanh(const struct tensor_ops *ops, const struct row_op *op, float *out,
                          const float *x, uint32_t row)
{
    (void)x;
    (void)row;
    ops->gelu_tanh(out, op->n);
}

static void run_rope(const struct tensor_ops *ops, const struct row_op *op, float *out,
                     const float *x, uint32_t row)
{
    (void)x;
    (void)row;
    ops->rope(out, op->n / HEAD_SIZE, HEAD_SIZE, room.cos, room.sin);
}

static void run_add(const struct tensor_ops *ops, const struct row_op *op, float *out,
                    const float *x, uint32_t row)
{
    (void)row;
    ops->add(out, x, op->n);
}

static void run_pack(const struct tensor_ops *ops, const struct row_op *op, float *out,
                     const float *x, uint32_t row)
{
    (void)row;
    ops->product[op->dtype].pack_row(out, x, op->n);
}

#define ATTEND(n, text)                                                                            \
    {                                                                                              \
        "attend", text, n, 4.0 * GROUP *HEAD_SIZE *(n), 8.0 * HEAD_SIZE *(n), TENSOR_F32,          \
            run_attend                                                                             \
    }

static const struct row_op row_ops[] = {
    ATTEND(36, "3 x 64, context 36"),
    ATTEND(512, "3 x 64, context 512"),
    ATTEND(1024, "3 x 64, context 1024"),
    {"rms_norm", "576", CHANNELS, 0, 12.0 * CHANNELS, TENSOR_F32, run_rms_norm},
    {"layer_norm", "576", CHANNELS, 0, 16.0 * CHANNELS, TENSOR_F32, run_layer_norm},
    {"silu_mul", "1536", INNER, 0, 12.0 * INNER, TENSOR_F32, run_silu_mul},
    {"gelu_tanh", "1536", INNER, 0, 8.0 * INNER, TENSOR_F32, run_gelu_tanh},
    {"rope", "9 x 64", QUERY_HEADS *HEAD_SIZE, 0, 8.0 * QUERY_HEADS *HEAD_SIZE, TENSOR_F32,
     run_rope},
    {"add", "576", CHANNELS, 0, 12.0 * CHANNELS, TENSOR_F32, run_add},
    {"pack_row", "576", CHANNELS, 0, 4.0 * CHANNELS, TENSOR_BF16, run_pack},
    {"pack_row", "1536", INNER, 0, 4.0 * INNER, TENSOR_BF16, run_pack},
    {"pack_row", "576", CHANNELS, 0, 4.0 * CHANNELS, TENSOR_INT8, run_pack},
    {"pack_row", "1536", INNER, 0, 4.0 * INNER, TENSOR_INT8, run_pack},
};

static void room_init(void)
{
    const size_t kv_floats = (size_t)MAX_TILES * TILE_FLOATS;
    room.x = must_alloc((size_t)N_ROWS * INNER * sizeof(float));
    room.out = must_alloc((size_t)N_ROWS * INNER * sizeof(float));
    room.weight = must_alloc(INNER * sizeof(float));
    room.bias = must_alloc(INNER * sizeof(float));
    room.keys = must_alloc(N_ROWS * kv_floats * sizeof(float));
    room.values = must_alloc(N_ROWS * kv_floats * sizeof(float));
    room.scratch =
        must_alloc((size_t)TENSOR_ATTEND_QUERIES * (MAX_CONTEXT + TENSOR_KV_TILE) * sizeof(float));
    fill_inputs(room.weight, INNER, 1001);
    fill_inputs(room.bias, INNER, 1002);
    fill_inputs(room.keys, (uint32_t)kv_floats, 1003);
    fill_inputs(room.values, (uint32_t)kv_floats, 1004);
    for (uint32_t i = 0; i < HEAD_SIZE / 2; i++) {
        room.cos[i] = cosf((float)i);
        room.sin[i] = sinf((float)i);
    }
    for (size_t row = 0; row < N_ROWS; row++) {
        fill_inputs(room.x + row * INNER, INNER, (uint32_t)row);
        float *keys = room.keys + row * kv_floats;
        float *values = room.values + row * kv_floats;
        if (row > 0) {
            memcpy(keys, room.keys, kv_floats * sizeof *keys);
            memcpy(values, room.values, kv_floats * sizeof *values);
        }
        for (size_t b = 0; b < MAX_TILES; b++) {
            room.k_tiles[row][b] = keys + b * TILE_FLOATS;
            room.v_tiles[row][b] = values + b * TILE_FLOATS;
        }
    }
}

static void room_deinit(void)
{
    mem_free(room.x);
    mem_free(room.out);
    mem_free(room.weight);
    mem_free(room.bias);
    mem_free(room.keys);
    mem_free(room.values);
    mem_free(room.scratch);
}

static double time_op(const struct tensor_ops *ops, const struct row_op *op)
{
    double best = HUGE_VAL;
    uint64_t start = monotime_now_ns();
    for (int pass = 0; pass < MIN_PASSES || monotime_now_ns() - start < PASSES_NS; pass++) {
        memcpy(room.out, room.x, (size_t)N_ROWS * INNER * sizeof(float));
        uint64_t begin = monotime_now_ns();
        for (uint32_t row = 0; row < N_ROWS; row++) {
            op->run(ops, op, room.out + (size_t)row * INNER, room.x + (size_t)row * INNER, row);
        }
        best = fmin(best, (double)(monotime_now_ns() - begin));
    }
    return best / N_ROWS;
}

/* int8 operand rows, as tensor.h says. */
static float operand_int8(const char *row, uint32_t k)
{
    const size_t head = TENSOR_INT8_HEAD * sizeof(float);
    const char *at = row + k / TENSOR_INT8_GROUP * (head + TENSOR_INT8_GROUP);
    float scale;
    int16_t offset;
    memcpy(&scale, at, sizeof scale);
    memcpy(&offset, at + sizeof scale, sizeof offset);
    return scale * (float)(offset + ((const uint8_t *)at)[head + k % TENSOR_INT8_GROUP]);
}

static float operand_bf16(const char *row, uint32_t k)
{
    uint16_t half;
    memcpy(&half, row + k * sizeof half, sizeof half);
    return bf16_to_f32(half);
}

/* One row's result as floats; returns how many. */
static uint32_t result_of(const struct tensor_ops *ops, const struct row_op *op, float *out)
{
    static _Alignas(64) float made[INNER];
    const struct tensor_product *product = &ops->product[op->dtype];
    memcpy(made, room.x, sizeof made);
    if (op->run != run_pack) {
        op->run(ops, op, made, room.x, 0);
        memcpy(out, made, sizeof made);
        return op->run == run_attend ? GROUP * HEAD_SIZE : op->n;
    }
    if (product->pack_row != NULL) {
        op->run(ops, op, made, room.x, 0);
    }
    for (uint32_t k = 0; k < op->n; k++) {
        const char *row = (const char *)made;
        out[k] = product->pack_row == NULL  ? to_bf16(room.x[k])
                 : op->dtype == TENSOR_BF16 ? operand_bf16(row, k)
                                            : operand_int8(row, k);
    }
    return op->n;
}

/* The largest difference from the reference, over the largest size of a value. */
static double relative_error(const struct tensor_ops *ops, const struct tensor_ops *reference,
                             const struct row_op *op)
{
    static float got[INNER];
    static float want[INNER];
    uint32_t n = result_of(ops, op, got);
    (void)result_of(reference, op, want);
    double top = 0.0;
    double worst = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        double diff = fabs((double)got[i] - (double)want[i]);
        worst = fmax(worst, isfinite(diff) ? diff : HUGE_VAL);
        top = fmax(top, fabs((double)want[i]));
    }
    return worst / top;
}

static void print_op(const struct tensor_ops *ops, const struct row_op *op, double ns, double error)
{
    double packed = op->run == run_pack ? (double)tensor_operand_bytes(ops, op->dtype, op->n) : 0.0;
    printf("%-11s %-21s %-5s %9.0f ", op->name, op->shape, tensor_dtype_name(op->dtype), ns);
    if (op->flop > 0) {
        printf("%8.1f", op->flop / ns);
    } else {
        printf("%8s", "-");
    }
    printf(" %8.2f %9.2g%s\n", (op->bytes + packed) / ns, error,
           error <= ROW_BOUND ? "" : "  WRONG");
}

bool bench_row_ops(const struct tensor_ops *ops)
{
    const struct tensor_ops *reference = NULL;
    if (tensor_select("reference", &reference, NULL) != STATUS_OK) {
        fail("no reference");
    }
    room_init();
    printf("\n%s, other operations, one row at a time on one thread (error: the largest difference "
           "from the\nreference over the largest value)\n",
           ops->isa);
    printf("%-11s %-21s %-5s %9s %8s %8s %9s\n", "operation", "shape", "dtype", "ns/row", "GFLOP/s",
           "GB/s", "error");
    bool ok = true;
    for (size_t i = 0; i < sizeof row_ops / sizeof row_ops[0]; i++) {
        const struct row_op *op = &row_ops[i];
        if (op->run == run_pack && ops->product[op->dtype].pack_row == NULL) {
            continue; /* rows of f32 are taken as they are */
        }
        double error = relative_error(ops, reference, op);
        print_op(ops, op, time_op(ops, op), error);
        ok = ok && error <= ROW_BOUND;
    }
    room_deinit();
    return ok;
}
