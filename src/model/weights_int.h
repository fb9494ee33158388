/*
 * weights_int.h - shared by weights*.c only.
 *
 *   weights_gguf.c, weights_safetensors.c   a file's directory -> struct stored[]
 *   weights_bind.c                          struct stored[] + architecture row -> struct slot[]
 *   weights_random.c                        config -> struct slot[], elements from a hash
 *   weights.c                               open, find, read
 */
#ifndef LLMSCHED_MODEL_WEIGHTS_INT_H
#define LLMSCHED_MODEL_WEIGHTS_INT_H

#include "model/names.h"
#include "model/weights.h"

/* Where the rows of one logical weight lie. */
struct slot {
    bool present;
    bool transposed; /* the file holds [inputs, outputs] */
    enum weight_dtype dtype;
    uint32_t file;      /* index into weights.files */
    uint32_t head_size; /* > 0: rows (or a bias's columns) are permuted within heads of this size */
    uint64_t offset;    /* of the file's tensor */
    uint64_t rows;      /* as offered */
    uint64_t columns;
    uint64_t first;   /* the file tensor's output that is our first (fused QKV) */
    uint64_t outputs; /* of the file's tensor */
};

struct weight_file {
    char *path;
    int fd;
};

struct weights {
    struct model_config config;
    struct slot *slots; /* [ROLE_COUNT][n_layers][2] */
    struct weight_file *files;
    uint32_t n_files;
    bool random;
    uint64_t seed;
    struct weights_summary summary;
};

/* A tensor as the file has it. */
struct stored {
    const char *name; /* borrowed from the directory */
    const char *type_name;
    bool readable; /* dtype is one we de-quantise */
    enum weight_dtype dtype;
    uint32_t rank;
    uint64_t dims[2]; /* slowest first; rank 1: dims[0] */
    uint32_t file;
    uint64_t offset;
    uint64_t bytes;
    bool used;
};

struct directory {
    struct stored *tensors;
    struct name_entry *names; /* room for count; sorted by weights_bind */
    uint64_t count;
    bool gguf;
};

/* Rows and columns of a role's weight by the config; a vector has rows 1. */
void weights_shape(const struct model_config *c, enum weight_role role, uint64_t *rows,
                   uint64_t *columns);
bool weights_is_per_layer(enum weight_role role);
bool weights_is_vector(enum weight_role role);
struct slot *weights_slot(const struct weights *w, enum weight_role role, uint32_t layer,
                          bool bias);

/* Fills w->slots and the summary; path is for messages. */
enum status weights_bind(struct weights *w, struct directory *d, const char *path,
                         struct error *err) MUST_USE;

/* Opens path as w->files[index]; expected_bytes: what the directory was checked against. */
enum status weights_open_file(struct weights *w, uint32_t index, const char *path,
                              uint64_t expected_bytes, struct error *err) MUST_USE;

enum status weights_open_gguf(struct weights *w, const char *file, struct error *err) MUST_USE;

/* file is a .safetensors, or with sharded the index of several. */
enum status weights_open_safetensors(struct weights *w, const char *file, bool sharded,
                                     struct error *err) MUST_USE;

/* Elements [first, first + n) of a slot's weight. */
void weights_random_fill(const struct weights *w, enum weight_role role, uint32_t layer,
                         uint64_t first, uint64_t n, float *out);

#endif
