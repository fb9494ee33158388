/*
 * simd_matmul_int.h - the part of simd_ops_int.h that multiplies matrices: register tiles, blocks,
 * operand rows. Included by it alone, after the vector operations.
 */
/* NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result) */

/* ---- matrix product ---- */

#define TILE_VECS 2 /* vectors per panel */
#define PANEL     (TILE_VECS * VEC_LANES)
/* Panels that few rows take side by side: enough sums in flight to hide the latency of a
 * multiply-add, and enough streams of weights to keep memory busy. */
#define ROW1_PANELS 4
#define ROW2_PANELS 2
#define TILE_ACCS                                                                                  \
    (TILE_ROWS * TILE_VECS > ROW1_PANELS * TILE_VECS ? TILE_ROWS * TILE_VECS                       \
                                                     : ROW1_PANELS * TILE_VECS)

#define CACHE_LINE 64
#define FETCH_STEP 16 /* steps between two requests for weights of the next block */
#define STEP_BYTES (PANEL * sizeof(float)) /* of a panel, whatever the dtype */

/* One register tile: some rows times some whole panels, over a block of steps. A step is as many
 * inputs as fit four bytes of weights: 1 of f32, 2 of bf16, 4 of int8. Sums of int8 are whole
 * numbers of 32 bits; they rest in y, and in a vec, as bits. */
struct tile {
    float *y;
    size_t ldy;
    const char *x;        /* operand rows, at the block's first step */
    size_t x_stride;      /* bytes */
    const float *x_scale; /* int8: of the tile's rows */
    const char *w;        /* [step][PANEL] of the first panel, at the block's first step */
    size_t panel_bytes;   /* from one panel to the next */
    const float *bias;    /* of the first panel's first output; NULL: 0 */
    const float *w_scale; /* int8: likewise, and what a sum begins with */
    const int32_t *w_offset;
    uint32_t n_steps;
    uint32_t columns; /* outputs that exist, of the tile's panels */
    bool starts;      /* the first block: begins a sum, otherwise goes on from y */
    bool ends;        /* the last block */
    /* Every FETCH_STEP steps so many cache lines from here on are asked into L2. A number, not a
     * pointer: it may run past the matrix, where asking does no harm. */
    uintptr_t fetch;
    uint32_t fetch_lines;
};

/* Parts of a step: each takes four bytes of an operand row and weights made of the loaded vector.
 */
static ALWAYS_INLINE uint32_t parts_of(const enum tensor_dtype dtype)
{
    return dtype == TENSOR_BF16 ? BF16_PARTS : dtype == TENSOR_INT8 ? INT8_PARTS : 1;
}

static ALWAYS_INLINE vec weights_of(vec w, const enum tensor_dtype dtype, const uint32_t part)
{
    switch (dtype) {
    case TENSOR_BF16:
        return vec_bf16_part(w, part);
    case TENSOR_INT8:
        return vec_int8_part(w, part);
    default:
        return w;
    }
}

static ALWAYS_INLINE vec accumulate(vec acc, vec w, vec x, const enum tensor_dtype dtype)
{
    switch (dtype) {
    case TENSOR_BF16:
        return vec_dot_bf16(acc, w, x);
    case TENSOR_INT8:
        return vec_dot_int8(acc, w, x);
    default:
        return vec_fma(x, w, acc);
    }
}

static ALWAYS_INLINE vec tile_begin(const struct tile *t, const enum tensor_dtype dtype, size_t row,
                                    uint32_t column)
{
    if (t->starts && dtype == TENSOR_INT8) {
        return INT8_OFFSET ? vec_load((const float *)(t->w_offset + column)) : vec_set1(0.0f);
    }
    if (t->starts) {
        return t->bias != NULL ? vec_load(t->bias + column) : vec_set1(0.0f);
    }
    const float *y = t->y + row * t->ldy + column;
    if (column + VEC_LANES <= t->columns) {
        return vec_load(y);
    }
    return column < t->columns ? vec_load_n(y, t->columns - column) : vec_set1(0.0f);
}

static ALWAYS_INLINE void tile_end(const struct tile *t, const enum tensor_dtype dtype, size_t row,
                                   uint32_t column, vec acc)
{
    float *y = t->y + row * t->ldy + column;
    if (t->ends && dtype == TENSOR_INT8) {
        vec scale = vec_mul(vec_set1(t->x_scale[row]), vec_load(t->w_scale + column));
        vec bias = t->bias != NULL ? vec_load(t->bias + column) : vec_set1(0.0f);
        acc = vec_fma(vec_from_int(acc), scale, bias);
    }
    if (column + VEC_LANES <= t->columns) {
        vec_store(y, acc);
    } else if (column < t->columns) {
        vec_store_n(y, acc, t->columns - column);
    }
}

/* One step: w is the first panel's, at is where the rows' words of this step are. dtype, rows and
 * panels are constants where this and the next one are expanded. */
static ALWAYS_INLINE void tile_step(const char *w, size_t panel_bytes, const char *const *x,
                                    size_t at, vec *acc, const enum tensor_dtype dtype,
                                    const uint32_t rows, const uint32_t panels)
{
    const uint32_t vecs = panels * TILE_VECS;
    UNROLL
    for (uint32_t part = 0; part < parts_of(dtype); part++) {
        vec wv[TILE_ACCS];
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            const char *from = w + v / TILE_VECS * panel_bytes + v % TILE_VECS * sizeof(vec);
            wv[v] = weights_of(vec_load((const float *)from), dtype, part);
        }
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            vec xk = vec_set1(((const float *)x[r])[at + part]);
            UNROLL
            for (uint32_t v = 0; v < vecs; v++) {
                acc[r * vecs + v] = accumulate(acc[r * vecs + v], wv[v], xk, dtype);
            }
        }
    }
}

static ALWAYS_INLINE void tile_run(const struct tile *t, const enum tensor_dtype dtype,
                                   const uint32_t rows, const uint32_t panels)
{
    const uint32_t vecs = panels * TILE_VECS;
    vec acc[TILE_ACCS];
    const char *x[TILE_ROWS];
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        x[r] = t->x + r * t->x_stride;
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            acc[r * vecs + v] = tile_begin(t, dtype, r, v * VEC_LANES);
        }
    }
    const char *w = t->w;
    const size_t n_steps = t->n_steps;
    uintptr_t fetch = t->fetch;
    for (size_t k = 0; k < n_steps;) {
        for (uint32_t i = 0; i < t->fetch_lines; i++, fetch += CACHE_LINE) {
            __builtin_prefetch((const void *)fetch, 0, 2);
        }
        size_t stop = n_steps - k < FETCH_STEP ? n_steps : k + FETCH_STEP;
        for (; k < stop; k++, w += STEP_BYTES) {
            tile_step(w, t->panel_bytes, x, k * parts_of(dtype), acc, dtype, rows, panels);
        }
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            tile_end(t, dtype, r, v * VEC_LANES, acc[r * vecs + v]);
        }
    }
}

#define TILE_CASE(rows)                                                                            \
    case rows:                                                                                     \
        tile_run(t, dtype, rows, 1);                                                               \
        break

/* One panel, 1 <= rows <= TILE_ROWS. */
static ALWAYS_INLINE void tile_run_rows(const struct tile *t, const enum tensor_dtype dtype,
                                        uint32_t rows)
{
    switch (rows) {
        TILE_CASE(1);
        TILE_CASE(2);
        TILE_CASE(3);
        TILE_CASE(4);
        TILE_CASE(5);
        TILE_CASE(6);
#if TILE_ROWS >= 12
        TILE_CASE(7);
        TILE_CASE(8);
        TILE_CASE(9);
        TILE_CASE(10);
        TILE_CASE(11);
        TILE_CASE(12);
#endif
    }
}

/* One or two rows wait for memory, not for multipliers: several panels flow in side by side, and
 * all steps at once. Returns how many panels it took. */
static ALWAYS_INLINE uint32_t few_rows(const struct tile *t, const enum tensor_dtype dtype,
                                       uint32_t n_rows, uint32_t panels)
{
    if (n_rows == 1 && panels >= ROW1_PANELS) {
        tile_run(t, dtype, 1, ROW1_PANELS);
        return ROW1_PANELS;
    }
    if (n_rows == 2 && panels >= ROW2_PANELS) {
        tile_run(t, dtype, 2, ROW2_PANELS);
        return ROW2_PANELS;
    }
    tile_run_rows(t, dtype, n_rows);
    return 1;
}

/*
 * Row tiles of nearly equal height, so that none is too low to keep the multipliers busy, and
 * blocks of nearly as many steps. All tiles pass over one block of weights while it lies in L1.
 * Only the first would wait for memory, and memory would idle during the others: so each of them
 * asks for its share of the next block, which follows this one in memory.
 */
static ALWAYS_INLINE void many_rows(const struct tile *whole, const enum tensor_dtype dtype,
                                    uint32_t n_rows)
{
    struct tile t = *whole;
    uint32_t n_tiles = (n_rows - 1) / TILE_ROWS + 1;
    uint32_t step_lines = FETCH_STEP * STEP_BYTES / CACHE_LINE;
    t.fetch_lines = (step_lines + n_tiles - 1) / n_tiles;
    uint32_t n_blocks = (whole->n_steps - 1) / TILE_STEPS + 1;
    uint32_t block = (whole->n_steps - 1) / n_blocks + 1;
    for (uint32_t k = 0; k < whole->n_steps; k += block) {
        t.n_steps = whole->n_steps - k < block ? whole->n_steps - k : block;
        t.starts = k == 0;
        t.ends = k + t.n_steps == whole->n_steps;
        t.w = whole->w + k * STEP_BYTES;
        t.fetch = (uintptr_t)(t.w + t.n_steps * STEP_BYTES);
        uint32_t asks = (t.n_steps + FETCH_STEP - 1) / FETCH_STEP;
        for (uint32_t i = 0; i < n_tiles; i++) {
            size_t row = (size_t)((uint64_t)n_rows * i / n_tiles);
            size_t row_end = (size_t)((uint64_t)n_rows * (i + 1) / n_tiles);
            t.x = whole->x + row * t.x_stride + k * parts_of(dtype) * sizeof(float);
            t.x_scale = dtype == TENSOR_INT8 ? whole->x_scale + row : NULL;
            t.y = whole->y + row * t.ldy;
            tile_run_rows(&t, dtype, (uint32_t)(row_end - row));
            t.fetch += (uintptr_t)asks * t.fetch_lines * CACHE_LINE;
        }
    }
}

static ALWAYS_INLINE void matmul(float *y, size_t ldy, const struct operand *x, uint32_t row,
                                 uint32_t n_rows, const struct packed_matrix *w,
                                 uint32_t panel_begin, uint32_t panel_end,
                                 const enum tensor_dtype dtype)
{
    const uint32_t n_steps = w->n_in / tensor_step_inputs(dtype);
    const size_t panel_bytes = n_steps * STEP_BYTES;
    for (uint32_t p = panel_begin; p < panel_end;) {
        size_t column = (size_t)p * PANEL;
        size_t left = w->n_out - column;
        struct tile t = {
            .y = y + row * ldy + column,
            .ldy = ldy,
            .x = (const char *)x->data + row * x->stride,
            .x_stride = x->stride,
            .x_scale = dtype == TENSOR_INT8 ? x->scale + row : NULL,
            .w = (const char *)w->data + p * panel_bytes,
            .panel_bytes = panel_bytes,
            .bias = w->bias != NULL ? w->bias + column : NULL,
            .w_scale = dtype == TENSOR_INT8 ? w->scale + column : NULL,
            .w_offset = dtype == TENSOR_INT8 ? w->offset + column : NULL,
            .n_steps = n_steps,
            .columns = left < ROW1_PANELS * PANEL ? (uint32_t)left : ROW1_PANELS * PANEL,
            .starts = true,
            .ends = true,
        };
        if (n_rows <= 2) {
            p += few_rows(&t, dtype, n_rows, panel_end - p);
        } else {
            many_rows(&t, dtype, n_rows);
            p++;
        }
    }
}

#define MATMUL(name, dtype)                                                                        \
    static void name(float *y, size_t ldy, const struct operand *x, uint32_t row, uint32_t n_rows, \
                     const struct packed_matrix *w, uint32_t panel_begin, uint32_t panel_end)      \
    {                                                                                              \
        matmul(y, ldy, x, row, n_rows, w, panel_begin, panel_end, dtype);                          \
    }

MATMUL(matmul_f32, TENSOR_F32)
MATMUL(matmul_bf16, TENSOR_BF16)
MATMUL(matmul_int8, TENSOR_INT8)

/* ---- operand rows ---- */

#if BF16_PARTS == 1
static float pack_bf16(void *out, const float *x, uint32_t n)
{
    uint16_t *to = out;
    for (uint32_t i = 0; i < n; i += VEC_LANES) {
        uint32_t left = n - i;
        vec_store_bf16(to + i, left < VEC_LANES ? vec_load_n(x + i, left) : vec_load(x + i));
    }
    return 1.0f;
}
#endif

/* Scale s = max |x| / 127, values round(x / s). A row that is not finite has a scale that is not
 * either, so that its products show it. */
static float pack_int8(void *out, const float *x, uint32_t n)
{
    vec max = vec_set1(0.0f);
    vec poison = vec_set1(0.0f);
    for (uint32_t i = 0; i < n; i += VEC_LANES) {
        uint32_t left = n - i;
        vec v = left < VEC_LANES ? vec_load_n(x + i, left) : vec_load(x + i);
        max = vec_max(vec_abs(v), max);
        poison = vec_fma(v, vec_set1(0.0f), poison);
    }
    float top = lane_max(max);
    float scale = top / 127.0f + lane_sum(poison);
    vec inverse = vec_set1(top > 0.0f ? 127.0f / top : 0.0f);
    for (uint32_t i = 0; i < n; i += VEC_LANES) {
        uint32_t left = n - i;
        vec v = left < VEC_LANES ? vec_load_n(x + i, left) : vec_load(x + i);
        vec_store_int8((char *)out + i * INT8_PARTS, vec_mul(v, inverse));
    }
    return scale;
}

/* NOLINTEND(bugprone-implicit-widening-of-multiplication-result) */
