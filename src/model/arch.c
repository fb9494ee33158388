/* arch.c - see arch.h. The only place that knows how families differ. */
#include "model/arch.h"

#include <string.h>

#define BIT(role) (1U << (role))

static const struct arch rows[] = {
    {
        .name = "gpt2",
        .gguf_name = "gpt2",
        .norm = NORM_LAYER,
        .position = POSITION_LEARNED,
        .activation = ACT_GELU_TANH,
        .fused_qkv = true,
        .transposed = true,
        .scale_attention = true,
        .tied_default = true,
        .bias_roles = BIT(ROLE_FINAL_NORM) | BIT(ROLE_ATTN_NORM) | BIT(ROLE_QKV) | BIT(ROLE_O) |
                      BIT(ROLE_MLP_NORM) | BIT(ROLE_UP) | BIT(ROLE_DOWN),
        .names =
            {
                .safetensors =
                    {
                        [ROLE_EMBED] = "transformer.wte",
                        [ROLE_POSITION] = "transformer.wpe",
                        [ROLE_FINAL_NORM] = "transformer.ln_f",
                        [ROLE_HEAD] = "lm_head",
                        [ROLE_ATTN_NORM] = "transformer.h.%d.ln_1",
                        [ROLE_QKV] = "transformer.h.%d.attn.c_attn",
                        [ROLE_O] = "transformer.h.%d.attn.c_proj",
                        [ROLE_MLP_NORM] = "transformer.h.%d.ln_2",
                        [ROLE_UP] = "transformer.h.%d.mlp.c_fc",
                        [ROLE_DOWN] = "transformer.h.%d.mlp.c_proj",
                    },
                .gguf =
                    {
                        [ROLE_EMBED] = "token_embd",
                        [ROLE_POSITION] = "position_embd",
                        [ROLE_FINAL_NORM] = "output_norm",
                        [ROLE_HEAD] = "output",
                        [ROLE_ATTN_NORM] = "blk.%d.attn_norm",
                        [ROLE_QKV] = "blk.%d.attn_qkv",
                        [ROLE_O] = "blk.%d.attn_output",
                        [ROLE_MLP_NORM] = "blk.%d.ffn_norm",
                        [ROLE_UP] = "blk.%d.ffn_up",
                        [ROLE_DOWN] = "blk.%d.ffn_down",
                    },
            },
        .ignored = {".attn.bias", ".attn.masked_bias"},
    },
    {
        .name = "gpt_neo",
        .norm = NORM_LAYER,
        .position = POSITION_LEARNED,
        .activation = ACT_GELU_TANH,
        .tied_default = true,
        .bias_roles = BIT(ROLE_FINAL_NORM) | BIT(ROLE_ATTN_NORM) | BIT(ROLE_O) |
                      BIT(ROLE_MLP_NORM) | BIT(ROLE_UP) | BIT(ROLE_DOWN),
        .names =
            {
                .safetensors =
                    {
                        [ROLE_EMBED] = "transformer.wte",
                        [ROLE_POSITION] = "transformer.wpe",
                        [ROLE_FINAL_NORM] = "transformer.ln_f",
                        [ROLE_HEAD] = "lm_head",
                        [ROLE_ATTN_NORM] = "transformer.h.%d.ln_1",
                        [ROLE_Q] = "transformer.h.%d.attn.attention.q_proj",
                        [ROLE_K] = "transformer.h.%d.attn.attention.k_proj",
                        [ROLE_V] = "transformer.h.%d.attn.attention.v_proj",
                        [ROLE_O] = "transformer.h.%d.attn.attention.out_proj",
                        [ROLE_MLP_NORM] = "transformer.h.%d.ln_2",
                        [ROLE_UP] = "transformer.h.%d.mlp.c_fc",
                        [ROLE_DOWN] = "transformer.h.%d.mlp.c_proj",
                    },
            },
        .ignored = {".attn.attention.bias", ".attn.attention.masked_bias"},
    },
    {
        .name = "llama",
        .gguf_name = "llama",
        .norm = NORM_RMS,
        .position = POSITION_ROPE,
        .activation = ACT_SILU,
        .gated_mlp = true,
        .scale_attention = true,
        .gguf_permuted_qk = true,
        .names =
            {
                .safetensors =
                    {
                        [ROLE_EMBED] = "model.embed_tokens",
                        [ROLE_FINAL_NORM] = "model.norm",
                        [ROLE_HEAD] = "lm_head",
                        [ROLE_ATTN_NORM] = "model.layers.%d.input_layernorm",
                        [ROLE_Q] = "model.layers.%d.self_attn.q_proj",
                        [ROLE_K] = "model.layers.%d.self_attn.k_proj",
                        [ROLE_V] = "model.layers.%d.self_attn.v_proj",
                        [ROLE_O] = "model.layers.%d.self_attn.o_proj",
                        [ROLE_MLP_NORM] = "model.layers.%d.post_attention_layernorm",
                        [ROLE_GATE] = "model.layers.%d.mlp.gate_proj",
                        [ROLE_UP] = "model.layers.%d.mlp.up_proj",
                        [ROLE_DOWN] = "model.layers.%d.mlp.down_proj",
                    },
                .gguf =
                    {
                        [ROLE_EMBED] = "token_embd",
                        [ROLE_FINAL_NORM] = "output_norm",
                        [ROLE_HEAD] = "output",
                        [ROLE_ATTN_NORM] = "blk.%d.attn_norm",
                        [ROLE_Q] = "blk.%d.attn_q",
                        [ROLE_K] = "blk.%d.attn_k",
                        [ROLE_V] = "blk.%d.attn_v",
                        [ROLE_O] = "blk.%d.attn_output",
                        [ROLE_MLP_NORM] = "blk.%d.ffn_norm",
                        [ROLE_GATE] = "blk.%d.ffn_gate",
                        [ROLE_UP] = "blk.%d.ffn_up",
                        [ROLE_DOWN] = "blk.%d.ffn_down",
                    },
            },
        .ignored = {".rotary_emb.inv_freq"},
    },
};

#define ROW_COUNT ((uint32_t)(sizeof rows / sizeof rows[0]))

/* "gpt2, gpt_neo, llama" of the rows that have a name of the kind asked for. */
static void list_known(char *out, size_t capacity, bool gguf)
{
    size_t used = 0;
    for (uint32_t i = 0; i < ROW_COUNT; i++) {
        const char *name = gguf ? rows[i].gguf_name : rows[i].name;
        size_t n = name == NULL ? 0 : strlen(name);
        if (n == 0 || used + n + 3 > capacity) {
            continue;
        }
        if (used > 0) {
            memcpy(out + used, ", ", 2);
            used += 2;
        }
        memcpy(out + used, name, n);
        used += n;
    }
    out[used] = '\0';
}

static enum status find(const char *name, bool gguf, const struct arch **out, struct error *err)
{
    for (uint32_t i = 0; i < ROW_COUNT; i++) {
        const char *row = gguf ? rows[i].gguf_name : rows[i].name;
        if (row != NULL && strcmp(row, name) == 0) {
            *out = &rows[i];
            return STATUS_OK;
        }
    }
    char known[128];
    list_known(known, sizeof known, gguf);
    return error_set(err, STATUS_UNSUPPORTED, -1,
                     "architecture '%.64s' is not supported; known%s: %s", name,
                     gguf ? " in GGUF files" : "", known);
}

enum status arch_by_model_type(const char *model_type, const struct arch **out, struct error *err)
{
    return find(model_type, false, out, err);
}

enum status arch_by_gguf_name(const char *name, const struct arch **out, struct error *err)
{
    return find(name, true, out, err);
}

const struct arch *arch_table(uint32_t *count)
{
    *count = ROW_COUNT;
    return rows;
}
