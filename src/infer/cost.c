/* cost.c - see cost.h. */
#include "infer/cost.h"

#include <string.h>

#include "infer/kv.h"

/* Padding, biases and int8's scales are read with the weights. */
static void add_matrix(const struct packed_matrix *m, uint64_t *bytes, uint64_t *multiply_adds)
{
    uint64_t padded = ((uint64_t)m->n_out + m->panel - 1) / m->panel * m->panel;
    *bytes += m->bytes + (m->bias != NULL ? padded * sizeof(float) : 0);
    multiply_adds[m->dtype] += (uint64_t)m->n_out * m->n_in;
}

void cost_of_network(const struct network *net, enum tensor_dtype kv_dtype,
                     struct network_cost *out)
{
    const struct model_config *c = &net->config;
    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        const struct network_layer *layer = &net->layers[i];
        add_matrix(&layer->qkv, &out->layer_bytes, out->layer_multiply_adds);
        add_matrix(&layer->o, &out->layer_bytes, out->layer_multiply_adds);
        add_matrix(&layer->up, &out->layer_bytes, out->layer_multiply_adds);
        add_matrix(&layer->down, &out->layer_bytes, out->layer_multiply_adds);
    }
    add_matrix(&net->head, &out->head_bytes, out->head_multiply_adds);
    uint64_t kv_of_layer =
        (uint64_t)2 * c->n_kv_heads * kv_tile_bytes(kv_dtype, c->head_size) / KV_BLOCK_TOKENS;
    out->attention[0].window = UINT64_MAX;
    out->attention[1].window = c->window;
    for (uint32_t i = 0; i < c->n_layers; i++) {
        bool is_local = c->layer_is_local[i] != 0 && c->window > 0;
        struct network_attention_cost *kind = &out->attention[is_local ? 1 : 0];
        kind->kv_bytes += kv_of_layer;
        kind->multiply_adds += (uint64_t)2 * c->n_heads * c->head_size;
    }
}
