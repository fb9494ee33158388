/* weights_gguf.c - the tensor directory of a GGUF file, for weights_bind. */
#include "base/mem.h"
#include "model/dequant.h"
#include "model/gguf.h"
#include "model/weights_int.h"

static void convert(const struct gguf_tensor *from, struct stored *to)
{
    *to = (struct stored){
        .name = from->name,
        .type_name = ggml_type_of(from->ggml_type)->name,
        .rank = from->rank,
        .offset = from->offset,
        .bytes = from->bytes,
    };
    to->readable = dequant_from_ggml(from->ggml_type, &to->dtype);
    /* ggml counts dimensions from the fastest one. */
    to->dims[0] = from->rank == 2 ? from->dims[1] : from->dims[0];
    to->dims[1] = from->dims[0];
}

enum status weights_open_gguf(struct weights *w, const char *file, struct error *err)
{
    struct gguf *g = NULL;
    enum status s = gguf_open(file, &g, err);
    if (s != STATUS_OK) {
        return s;
    }
    struct directory d = {.gguf = true, .count = gguf_tensor_count(g)};
    if (d.count == 0) {
        s = error_set(err, STATUS_BAD_MODEL, -1, "%s: the file holds no tensors", file);
        goto done;
    }
    w->files = mem_alloc(1, sizeof *w->files);
    d.tensors = mem_alloc((size_t)d.count, sizeof *d.tensors);
    d.names = mem_alloc((size_t)d.count, sizeof *d.names);
    if (w->files == NULL || d.tensors == NULL || d.names == NULL) {
        s = error_set(err, STATUS_NO_MEMORY, -1, "%s: no memory for the directory", file);
        goto done;
    }
    for (uint64_t i = 0; i < d.count; i++) {
        convert(gguf_tensor_at(g, i), &d.tensors[i]);
    }
    s = weights_open_file(w, 0, file, gguf_file_bytes(g), err);
    if (s == STATUS_OK) {
        w->summary.format = "gguf";
        s = weights_bind(w, &d, file, err);
    }
done:
    mem_free(d.tensors);
    mem_free(d.names);
    gguf_close(g);
    return s;
}
