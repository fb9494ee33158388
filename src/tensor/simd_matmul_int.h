/*
 * simd_matmul_int.h - the part of simd_ops_int.h that multiplies matrices: register tiles, blocks,
 * operand rows. Included by it alone, after the vector operations.
 */
/* NOLINTBEGIN(bugprone-implicit-widening-of-multiplication-result) */

/* ---- matrix product ---- */

#define TILE_VECS 2 /* vectors per panel; the assembly takes two */
#define PANEL     (TILE_VECS * VEC_LANES)
/* Panels that few rows take side by side: enough sums in flight to hide the latency of a
 * multiply-add, and enough streams of weights to keep memory busy. */
#define ROW1_PANELS 4
#define ROW2_PANELS 2
#define TILE_ACCS                                                                                  \
    (TILE_ROWS * TILE_VECS > ROW1_PANELS * TILE_VECS ? TILE_ROWS * TILE_VECS                       \
                                                     : ROW1_PANELS * TILE_VECS)

_Static_assert(INT8_TILE_ROWS <= TILE_ROWS, "TILE_ACCS has room for both");

#define STEPS_AT_ONCE 4 /* unrolled: a core shared with another thread has no slots to spare */
#define CACHE_LINE    64
/* Steps between two requests for weights of the next block; a group of int8. */
#define CHUNK_STEPS (TENSOR_INT8_GROUP / 4)
#define STEP_BYTES  (PANEL * sizeof(float)) /* of a panel, whatever the dtype */

/* One register tile: some rows times some whole panels, over a block of steps. A step is as many
 * inputs as fit four bytes of weights: 1 of f32, 2 of bf16, 4 of int8. */
struct tile {
    float *y;
    size_t ldy;
    const char *x;      /* operand rows, at the block's first step */
    size_t x_stride;    /* bytes */
    const char *w;      /* [step][PANEL] of the first panel, at the block's first step */
    size_t panel_bytes; /* from one panel to the next */
    const float *bias;  /* of the first panel's first output; NULL: 0 */
    uint32_t n_steps;   /* heads of groups not counted */
    uint32_t columns;   /* outputs that exist, of the tile's panels */
    bool starts;        /* the first block: begins a sum, otherwise goes on from y */
    /* Every CHUNK_STEPS steps so many cache lines from here on are asked into L2. A number, not a
     * pointer: it may run past the matrix, where asking does no harm. */
    uintptr_t fetch;
    uint32_t fetch_lines;
};

/* Parts of a step: each takes four bytes of an operand row and weights made of the loaded vector.
 */
static ALWAYS_INLINE uint32_t parts_of(const enum tensor_dtype dtype)
{
    return dtype == TENSOR_BF16 ? BF16_PARTS : 1;
}

/* Where step k (int8: a multiple of CHUNK_STEPS) begins, in steps of weights and in words of an
 * operand row. */
static ALWAYS_INLINE size_t weights_at(const enum tensor_dtype dtype, uint32_t k)
{
    return dtype == TENSOR_INT8 ? (size_t)k + k / CHUNK_STEPS : k;
}

static ALWAYS_INLINE size_t words_at(const enum tensor_dtype dtype, uint32_t k)
{
    size_t words = (size_t)k * parts_of(dtype);
    return dtype == TENSOR_INT8 ? words + (size_t)(k / CHUNK_STEPS) * TENSOR_INT8_HEAD : words;
}

static ALWAYS_INLINE vec weights_of(vec w, const enum tensor_dtype dtype, const uint32_t part)
{
    return dtype == TENSOR_BF16 ? vec_bf16_part(w, part) : w;
}

/* From here on v is any value, in a register, to the compiler: what is before stays before. It
 * would bring loads forward that leave no register for a sum, and see through loops that only
 * measure. PIN_ADDRESS is for numbers. */
#define PIN(v)         __asm__ volatile("" : "+v"(v))
#define PIN_ADDRESS(v) __asm__ volatile("" : "+r"(v))

/* acc[v] += w[v] x for the vectors of some panels. Of one panel in assembly on x86: with
 * intrinsics, gcc 12 copies sums between registers, and spills some, once steps are unrolled. */
static ALWAYS_INLINE void accumulate(vec *acc, const vec *w, const float *x, const uint32_t vecs,
                                     const enum tensor_dtype dtype)
{
    const bool is_fma = dtype == TENSOR_F32 || parts_of(dtype) > 1;
    vec all;
#if defined(__x86_64__)
    if (is_fma && vecs == TILE_VECS) {
        __asm__ volatile("vbroadcastss %[x], %[all]\n\t"
                         "vfmadd231ps %[w0], %[all], %[acc0]\n\t"
                         "vfmadd231ps %[w1], %[all], %[acc1]"
                         : [acc0] "+&v"(acc[0]), [acc1] "+v"(acc[1]), [all] "=&v"(all)
                         : [x] "m"(*x), [w0] "v"(w[0]), [w1] "v"(w[1]));
        return;
    }
#endif
    all = vec_set1(*x);
    UNROLL
    for (uint32_t v = 0; v < vecs; v++) {
        acc[v] = is_fma                 ? vec_fma(all, w[v], acc[v])
                 : dtype == TENSOR_BF16 ? vec_dot_bf16(acc[v], w[v], all)
                                        : vec_dot_int8(acc[v], w[v], all);
    }
    UNROLL
    for (uint32_t v = 0; v < vecs; v++) {
        PIN(acc[v]);
    }
}

static ALWAYS_INLINE vec tile_begin(const struct tile *t, size_t row, uint32_t column)
{
    if (t->starts) {
        return t->bias != NULL ? vec_load(t->bias + column) : vec_set1(0.0f);
    }
    const float *y = t->y + row * t->ldy + column;
    if (column + VEC_LANES <= t->columns) {
        return vec_load(y);
    }
    return column < t->columns ? vec_load_n(y, t->columns - column) : vec_set1(0.0f);
}

static ALWAYS_INLINE void tile_end(const struct tile *t, size_t row, uint32_t column, vec acc)
{
    float *y = t->y + row * t->ldy + column;
    if (column + VEC_LANES <= t->columns) {
        vec_store(y, acc);
    } else if (column < t->columns) {
        vec_store_n(y, acc, t->columns - column);
    }
}

/* Rows of operands by few pointers: row r is at[r / 3] + r % 3 * stride, an address that needs no
 * register of its own. */
struct rows {
    const char *at[(TILE_ROWS + 2) / 3];
    size_t stride;
};

static ALWAYS_INLINE const float *row_at(const struct rows *x, uint32_t r, uint32_t word)
{
    return (const float *)(x->at[r / 3] + r % 3 * x->stride) + word;
}

static ALWAYS_INLINE vec row_word(const struct rows *x, uint32_t r, uint32_t word)
{
    return vec_set1(*row_at(x, r, word));
}

static ALWAYS_INLINE void rows_advance(struct rows *x, const uint32_t rows, size_t words)
{
    UNROLL
    for (uint32_t i = 0; i < (rows + 2) / 3; i++) {
        x->at[i] += words * sizeof(float);
    }
}

/* Vector v of a step whose first panel's weights stand at w. */
static ALWAYS_INLINE vec tile_weights(const char *w, size_t panel_bytes, const uint32_t v)
{
    return vec_load((const float *)(w + v / TILE_VECS * panel_bytes + v % TILE_VECS * sizeof(vec)));
}

/* One step: w is the first panel's, x stands `word` words before its own. dtype, rows and panels
 * are constants where this and the next two are expanded. */
static ALWAYS_INLINE void tile_step(const char *w, size_t panel_bytes, const struct rows *x,
                                    const uint32_t word, vec *acc, const enum tensor_dtype dtype,
                                    const uint32_t rows, const uint32_t panels)
{
    const uint32_t vecs = panels * TILE_VECS;
    UNROLL
    for (uint32_t part = 0; part < parts_of(dtype); part++) {
        vec wv[TILE_ACCS];
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            wv[v] = weights_of(tile_weights(w, panel_bytes, v), dtype, part);
        }
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            accumulate(acc + r * vecs, wv, row_at(x, r, word + part), vecs, dtype);
        }
    }
}

/* Two steps of int8. */
static ALWAYS_INLINE void tile_two_steps(const char *w, size_t panel_bytes, const struct rows *x,
                                         const uint32_t word, vec *acc, const uint32_t rows,
                                         const uint32_t panels)
{
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t p = 0; p < panels; p++) {
            vec *sums = acc + (r * panels + p) * TILE_VECS;
            const vec *first = (const vec *)(w + p * panel_bytes);
            vec_add_fours(sums, first, first + TILE_VECS, row_at(x, r, word));
            PIN(sums[0]);
            PIN(sums[1]);
        }
    }
}

/* Steps of one chunk; int8: with what stands before them, a group. Moves x behind them. */
static ALWAYS_INLINE void tile_chunk(const char *w, size_t panel_bytes, struct rows *x,
                                     size_t steps, vec *sum, const enum tensor_dtype dtype,
                                     const uint32_t rows, const uint32_t panels)
{
    const uint32_t vecs = panels * TILE_VECS;
    if (dtype != TENSOR_INT8) {
        const uint32_t words = parts_of(dtype);
        const uint32_t at_once = panels == 1 ? STEPS_AT_ONCE : 1;
        size_t k = 0;
        for (; k + at_once <= steps; k += at_once) {
            if (panels == 1) {
                PIN_ADDRESS(x->stride); /* else gcc keeps twice of it on the stack */
            }
            UNROLL
            for (uint32_t i = 0; i < at_once; i++, w += STEP_BYTES) {
                tile_step(w, panel_bytes, x, i * words, sum, dtype, rows, panels);
            }
            rows_advance(x, rows, at_once * words);
        }
        for (; k < steps; k++, w += STEP_BYTES) {
            tile_step(w, panel_bytes, x, 0, sum, dtype, rows, panels);
            rows_advance(x, rows, words);
        }
        return;
    }
    const struct rows head = *x;
    vec acc[TILE_ACCS]; /* whole numbers of 32 bits */
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        vec offset = row_word(&head, r, 1);
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            acc[r * vecs + v] = vec_dot_int16(tile_weights(w, panel_bytes, v), offset);
        }
    }
    rows_advance(x, rows, TENSOR_INT8_HEAD);
    const char *step = w + STEP_BYTES;
    size_t k = 0;
    for (; k + STEPS_AT_ONCE <= steps; k += STEPS_AT_ONCE) {
        if (panels == 1) {
            PIN_ADDRESS(x->stride);
        }
        UNROLL
        for (uint32_t i = 0; i < STEPS_AT_ONCE; i += 2, step += 2 * STEP_BYTES) {
            tile_two_steps(step, panel_bytes, x, i, acc, rows, panels);
        }
        rows_advance(x, rows, STEPS_AT_ONCE);
    }
    for (; k + 2 <= steps; k += 2, step += 2 * STEP_BYTES) {
        tile_two_steps(step, panel_bytes, x, 0, acc, rows, panels);
        rows_advance(x, rows, 2);
    }
    if (steps % 2 != 0) {
        tile_step(step, panel_bytes, x, 0, acc, dtype, rows, panels);
        rows_advance(x, rows, 1);
    }
    UNROLL
    for (uint32_t v = 0; v < vecs; v++) {
        vec scale = vec_high_halves(tile_weights(w, panel_bytes, v));
        UNROLL
        for (uint32_t r = 0; r < rows; r++) {
            vec s = vec_mul(row_word(&head, r, 0), scale);
            sum[r * vecs + v] = vec_fma(vec_from_int(acc[r * vecs + v]), s, sum[r * vecs + v]);
        }
    }
}

static ALWAYS_INLINE void tile_run(const struct tile *t, const enum tensor_dtype dtype,
                                   const uint32_t rows, const uint32_t panels)
{
    const uint32_t vecs = panels * TILE_VECS;
    vec sum[TILE_ACCS];
    struct rows x = {.stride = t->x_stride};
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        x.at[r / 3] = t->x + r / 3 * 3 * t->x_stride;
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            sum[r * vecs + v] = tile_begin(t, r, v * VEC_LANES);
        }
    }
    const char *w = t->w;
    const size_t n_steps = t->n_steps;
    uintptr_t fetch = t->fetch;
    for (size_t k = 0; k < n_steps; k += CHUNK_STEPS) {
        for (uint32_t i = 0; i < t->fetch_lines; i++, fetch += CACHE_LINE) {
            __builtin_prefetch((const void *)fetch, 0, 2);
        }
        size_t steps = n_steps - k < CHUNK_STEPS ? n_steps - k : CHUNK_STEPS;
        tile_chunk(w, t->panel_bytes, &x, steps, sum, dtype, rows, panels);
        w += weights_at(dtype, CHUNK_STEPS) * STEP_BYTES;
    }
    UNROLL
    for (uint32_t r = 0; r < rows; r++) {
        UNROLL
        for (uint32_t v = 0; v < vecs; v++) {
            tile_end(t, r, v * VEC_LANES, sum[r * vecs + v]);
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
    uint32_t tile_rows = dtype == TENSOR_INT8 ? INT8_TILE_ROWS : TILE_ROWS;
    uint32_t n_tiles = (n_rows - 1) / tile_rows + 1;
    uint32_t step_lines = CHUNK_STEPS * STEP_BYTES / CACHE_LINE;
    t.fetch_lines = (step_lines + n_tiles - 1) / n_tiles;
    uint32_t n_blocks = (whole->n_steps - 1) / TILE_STEPS + 1;
    uint32_t block = (whole->n_steps - 1) / n_blocks / CHUNK_STEPS * CHUNK_STEPS + CHUNK_STEPS;
    for (uint32_t k = 0; k < whole->n_steps; k += block) {
        t.n_steps = whole->n_steps - k < block ? whole->n_steps - k : block;
        t.starts = k == 0;
        t.w = whole->w + weights_at(dtype, k) * STEP_BYTES;
        t.fetch = (uintptr_t)(t.w + weights_at(dtype, t.n_steps) * STEP_BYTES);
        uint32_t asks = (t.n_steps + CHUNK_STEPS - 1) / CHUNK_STEPS;
        for (uint32_t i = 0; i < n_tiles; i++) {
            size_t row = (size_t)((uint64_t)n_rows * i / n_tiles);
            size_t row_end = (size_t)((uint64_t)n_rows * (i + 1) / n_tiles);
            t.x = whole->x + row * t.x_stride + words_at(dtype, k) * sizeof(float);
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
    const size_t panel_bytes = packed_steps(dtype, w->n_in) * STEP_BYTES;
    for (uint32_t p = panel_begin; p < panel_end;) {
        size_t column = (size_t)p * PANEL;
        size_t left = w->n_out - column;
        struct tile t = {
            .y = y + row * ldy + column,
            .ldy = ldy,
            .x = (const char *)x->data + row * x->stride,
            .x_stride = x->stride,
            .w = (const char *)w->data + p * panel_bytes,
            .panel_bytes = panel_bytes,
            .bias = w->bias != NULL ? w->bias + column : NULL,
            .n_steps = n_steps,
            .columns = left < ROW1_PANELS * PANEL ? (uint32_t)left : ROW1_PANELS * PANEL,
            .starts = true,
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
static void pack_bf16(void *out, const float *x, uint32_t n)
{
    uint16_t *to = out;
    for (uint32_t i = 0; i < n; i += VEC_LANES) {
        uint32_t left = n - i;
        vec_store_bf16(to + i, left < VEC_LANES ? vec_load_n(x + i, left) : vec_load(x + i));
    }
}
#endif

/* Scale s of LEVELS from the least value, or 0, to the largest; bytes from there on. What is not
 * finite gives a scale that is not a number. */
static ALWAYS_INLINE void pack_group(char *out, const float *x, uint32_t n)
{
    vec v[TENSOR_INT8_GROUP / VEC_LANES];
    const uint32_t vecs = TENSOR_INT8_GROUP / VEC_LANES;
    const vec zeros = vec_set1(0.0f);
    vec max = zeros;
    vec above = zeros;
    vec below = zeros;
    UNROLL
    for (uint32_t i = 0; i < vecs; i++) {
        uint32_t at = i * VEC_LANES;
        v[i] = at + VEC_LANES <= n ? vec_load(x + at) : at < n ? vec_load_n(x + at, n - at) : zeros;
        max = vec_max_bits(vec_abs(v[i]), max);
        above = vec_max(v[i], above);
        below = vec_max(vec_sub(zeros, v[i]), below);
    }
    float top = lane_max_bits(max);
    bool is_finite = top <= FLT_MAX;
    const float levels = TENSOR_INT8_LEVELS;
    float least = lane_max(below);
    float scale = is_finite ? lane_max(above) / levels + least / levels : NAN;
    float inverse = is_finite && top >= TENSOR_INT8_LEAST ? 1.0f / scale : 0.0f;
    const float zero = is_finite ? rintf(least * inverse) : 0.0f;
    UNROLL
    for (uint32_t i = 0; i < vecs; i++) {
        if (i * VEC_LANES < n) {
            vec whole = vec_round(vec_mul(v[i], vec_set1(inverse)));
            vec_store_bytes(out + TENSOR_INT8_HEAD * sizeof(float) + i * VEC_LANES,
                            vec_add(whole, vec_set1(zero)));
        }
    }
    const int16_t offset[2] = {(int16_t)-zero, 0};
    memcpy(out, &scale, sizeof scale);
    memcpy(out + sizeof scale, offset, sizeof offset);
}

static void pack_int8(void *out, const float *x, uint32_t n)
{
    char *to = out;
    uint32_t k = 0;
    for (; k + TENSOR_INT8_GROUP <= n; k += TENSOR_INT8_GROUP) {
        pack_group(to, x + k, TENSOR_INT8_GROUP);
        to += words_at(TENSOR_INT8, CHUNK_STEPS) * sizeof(float);
    }
    if (k < n) {
        pack_group(to, x + k, n - k);
    }
}

/* NOLINTEND(bugprone-implicit-widening-of-multiplication-result) */
