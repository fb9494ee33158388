/* weights.c - see weights.h: open, find, read. */
#include "model/weights.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fs.h"
#include "base/mem.h"
#include "model/dequant.h"
#include "model/files.h"
#include "model/weights_int.h"

#define CHUNK_BYTES ((size_t)256 * 1024) /* read at once; large enough to be bound by bandwidth */
/* A Conv1D tensor is read in tiles of inputs x outputs, so that the transpose stays in the cache.
 */
#define TILE_INPUTS  16U
#define TILE_OUTPUTS 1024U

enum status weights_open_file(struct weights *w, uint32_t index, const char *path,
                              uint64_t expected_bytes, struct error *err)
{
    assert(index == w->n_files);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        return error_set(err, STATUS_IO, -1, "%s: %s", path, strerror(errno));
    }
    struct stat st;
    char *copy = mem_strdup(path);
    enum status s = STATUS_OK;
    if (copy == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a path", path);
    } else if (fstat(fd, &st) != 0 || (uint64_t)st.st_size != expected_bytes) {
        s = error_set(err, STATUS_BAD_DATA, -1, "%s: the file changed while it was opened", path);
    }
    if (s != STATUS_OK) {
        mem_free(copy);
        close(fd);
        return s;
    }
    w->files[w->n_files++] = (struct weight_file){.path = copy, .fd = fd};
    return STATUS_OK;
}

enum status weights_open(const char *path, const struct model_config *config, struct weights **out,
                         struct error *err)
{
    struct model_files files;
    enum status s = model_files_find(path, &files, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct weights *w = mem_alloc(1, sizeof *w);
    if (w != NULL) {
        w->config = *config;
        w->slots = mem_alloc((size_t)ROLE_COUNT * config->n_layers * 2, sizeof *w->slots);
    }
    if (w == NULL || w->slots == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for the directory", path);
    } else if (files.format == MODEL_FORMAT_GGUF) {
        s = weights_open_gguf(w, files.file, err);
    } else if (files.format != MODEL_FORMAT_NONE) {
        s = weights_open_safetensors(w, files.file, files.format == MODEL_FORMAT_SHARDS, err);
    } else {
        s = error_set(err, STATUS_NOT_FOUND, -1, "%s: no *.safetensors and no *.gguf file here",
                      path);
    }
    model_files_deinit(&files);
    if (s != STATUS_OK) {
        weights_close(w);
        return s;
    }
    *out = w;
    return STATUS_OK;
}

void weights_close(struct weights *w)
{
    if (w == NULL) {
        return;
    }
    for (uint32_t i = 0; i < w->n_files; i++) {
        close(w->files[i].fd);
        mem_free(w->files[i].path);
    }
    mem_free(w->files);
    mem_free(w->slots);
    mem_free(w);
}

bool weights_find(const struct weights *w, enum weight_role role, uint32_t layer, bool bias,
                  struct weight_info *info)
{
    const struct slot *s = weights_slot(w, role, layer, bias);
    if (!s->present) {
        return false;
    }
    if (info != NULL) {
        *info = (struct weight_info){.dtype = s->dtype, .rows = s->rows, .columns = s->columns};
    }
    return true;
}

void weights_summarise(const struct weights *w, struct weights_summary *out)
{
    *out = w->summary;
    out->n_files = w->n_files;
}

/* ---- reading ---- */

struct reader {
    const struct weight_file *file;
    const struct slot *slot;
    const struct dequant_layout *layout;
    uint8_t *raw; /* CHUNK_BYTES; NULL for F32, which needs no detour */
    struct error *err;
};

/* `Rotate half` order r -> the row of the file, which interleaves the two halves of each head:
 * half a, index i of a head stands at 2 i + a. */
static uint64_t file_row(const struct slot *s, uint64_t r)
{
    if (s->head_size == 0) {
        return r;
    }
    uint64_t within = r % s->head_size;
    uint64_t half = s->head_size / 2;
    return r - within + 2 * (within % half) + within / half;
}

/* n consecutive elements of the file's tensor, whole blocks. */
static enum status read_elements(const struct reader *r, uint64_t first, uint64_t n, float *out)
{
    uint64_t block = r->layout->block;
    uint64_t bytes = r->layout->bytes;
    uint64_t per_chunk = CHUNK_BYTES / bytes * block;
    for (uint64_t done = 0; done < n;) {
        uint64_t step = n - done < per_chunk ? n - done : per_chunk;
        uint64_t offset = r->slot->offset + (first + done) / block * bytes;
        void *target = r->slot->dtype == DTYPE_F32 ? (void *)(out + done) : r->raw;
        enum status s = fs_pread_exact(r->file->fd, r->file->path, target,
                                       (size_t)(step / block * bytes), offset, r->err);
        if (s != STATUS_OK) {
            return s;
        }
        if (r->slot->dtype != DTYPE_F32) {
            dequant_row(r->slot->dtype, r->raw, (size_t)step, out + done);
        }
        done += step;
    }
    return STATUS_OK;
}

static enum status read_plain(const struct reader *r, uint64_t row, uint64_t n, float *out)
{
    const struct slot *s = r->slot;
    if (s->head_size == 0) {
        return read_elements(r, (s->first + row) * s->columns, n * s->columns, out);
    }
    for (uint64_t i = 0; i < n; i++) {
        uint64_t from = s->first + file_row(s, row + i);
        enum status status = read_elements(r, from * s->columns, s->columns, out + i * s->columns);
        if (status != STATUS_OK) {
            return status;
        }
    }
    return STATUS_OK;
}

/* The file holds [inputs, outputs]; out gets rows of inputs. */
static enum status read_transposed(const struct reader *r, uint64_t row, uint64_t n, float *out)
{
    const struct slot *s = r->slot;
    float *tile = mem_alloc((size_t)TILE_INPUTS * TILE_OUTPUTS, sizeof *tile);
    if (tile == NULL) {
        return error_set(r->err, STATUS_NO_MEMORY, -1, "%s: no memory for a buffer", r->file->path);
    }
    enum status status = STATUS_OK;
    for (uint64_t j = 0; j < n && status == STATUS_OK; j += TILE_OUTPUTS) {
        uint64_t width = n - j < TILE_OUTPUTS ? n - j : TILE_OUTPUTS;
        for (uint64_t k = 0; k < s->columns && status == STATUS_OK; k += TILE_INPUTS) {
            uint64_t height = s->columns - k < TILE_INPUTS ? s->columns - k : TILE_INPUTS;
            for (uint64_t i = 0; i < height && status == STATUS_OK; i++) {
                uint64_t from = (k + i) * s->outputs + s->first + row + j;
                status = read_elements(r, from, width, tile + i * TILE_OUTPUTS);
            }
            for (uint64_t o = 0; o < width; o++) {
                for (uint64_t i = 0; i < height; i++) {
                    out[(j + o) * s->columns + k + i] = tile[i * TILE_OUTPUTS + o];
                }
            }
        }
    }
    mem_free(tile);
    return status;
}

/* A bias: one row; a permuted one is put in order. */
static enum status read_bias(const struct reader *r, float *out)
{
    const struct slot *s = r->slot;
    if (s->head_size == 0) {
        return read_elements(r, s->first, s->columns, out);
    }
    float *stored = mem_alloc((size_t)s->columns, sizeof *stored);
    if (stored == NULL) {
        return error_set(r->err, STATUS_NO_MEMORY, -1, "%s: no memory for a buffer", r->file->path);
    }
    enum status status = read_elements(r, s->first, s->columns, stored);
    for (uint64_t i = 0; i < s->columns && status == STATUS_OK; i++) {
        out[i] = stored[file_row(s, i)];
    }
    mem_free(stored);
    return status;
}

static void read_random(const struct weights *w, enum weight_role role, uint32_t layer, bool bias,
                        uint64_t row, uint64_t n, float *out)
{
    const struct slot *s = weights_slot(w, role, layer, bias);
    if (!bias && !weights_is_vector(role)) {
        weights_random_fill(w, role, layer, row * s->columns, n * s->columns, out);
        return;
    }
    for (uint64_t i = 0; i < n * s->columns; i++) {
        out[i] = bias ? 0.0F : 1.0F;
    }
}

enum status weights_read_rows(const struct weights *w, enum weight_role role, uint32_t layer,
                              bool bias, uint64_t row, uint64_t n, float *out, struct error *err)
{
    const struct slot *slot = weights_slot(w, role, layer, bias);
    assert(slot->present && row <= slot->rows && n <= slot->rows - row);
    if (w->random) {
        read_random(w, role, layer, bias, row, n, out);
        return STATUS_OK;
    }
    struct reader r = {.file = &w->files[slot->file],
                       .slot = slot,
                       .layout = dequant_layout(slot->dtype),
                       .raw = slot->dtype == DTYPE_F32 ? NULL : mem_alloc(CHUNK_BYTES, 1),
                       .err = err};
    if (r.raw == NULL && slot->dtype != DTYPE_F32) {
        return error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for a buffer", r.file->path);
    }
    enum status s;
    if (bias) {
        s = n == 0 ? STATUS_OK : read_bias(&r, out);
    } else if (slot->transposed) {
        s = read_transposed(&r, row, n, out);
    } else {
        s = read_plain(&r, row, n, out);
    }
    mem_free(r.raw);
    return s;
}
