/*
 * arch.h - the architecture table: one row of switches and tensor names per model family.
 *
 * The row says everything that differs between families; files (weights.c) and forward pass
 * (infer) read it and hold no `if (gpt2)`. Adding a family that fits the switches is one row.
 */
#ifndef LLMSCHED_MODEL_ARCH_H
#define LLMSCHED_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "base/status.h"

enum norm_kind { NORM_LAYER, NORM_RMS };
enum position_kind { POSITION_LEARNED, POSITION_ROPE };
enum activation { ACT_GELU_TANH, ACT_GELU_ERF, ACT_RELU, ACT_SILU };
enum rope_scaling { ROPE_PLAIN, ROPE_LINEAR, ROPE_LLAMA3 };

/* The logical weights of a decoder. L: one per layer. Rows x columns = outputs x inputs. */
enum weight_role {
    ROLE_EMBED,      /* [V, C] */
    ROLE_POSITION,   /* [n_ctx, C]; POSITION_LEARNED only */
    ROLE_FINAL_NORM, /* [C] */
    ROLE_HEAD,       /* [V, C]; absent when tied */
    ROLE_ATTN_NORM,  /* L [C] */
    ROLE_Q,          /* L [H*D, C] */
    ROLE_K,          /* L [G*D, C] */
    ROLE_V,          /* L [G*D, C] */
    ROLE_QKV,        /* L [(H+2G)*D, C], fused file layout: q rows, then k, then v */
    ROLE_O,          /* L [C, H*D] */
    ROLE_MLP_NORM,   /* L [C] */
    ROLE_GATE,       /* L [F, C]; gated MLP only */
    ROLE_UP,         /* L [F, C] */
    ROLE_DOWN,       /* L [C, F] */
    ROLE_COUNT
};

#define ARCH_MAX_IGNORED 4

/* Names as they stand in files, '%d' = layer; without ".weight" / ".bias". NULL: the family has no
 * such tensor (or, for GGUF, llama.cpp does not know the family). */
struct arch_names {
    const char *safetensors[ROLE_COUNT];
    const char *gguf[ROLE_COUNT];
};

struct arch {
    const char *name;      /* config.json model_type, also our name: "llama" */
    const char *gguf_name; /* general.architecture, or NULL */
    enum norm_kind norm;
    enum position_kind position;
    enum activation activation; /* when the config names none */
    bool gated_mlp;             /* down(act(gate(x)) * up(x)) */
    bool fused_qkv;             /* files hold ROLE_QKV */
    bool transposed;            /* safetensors hold [in, out] (Conv1D) */
    bool scale_attention;       /* scores / sqrt(D); gpt_neo has none */
    bool gguf_permuted_qk;      /* GGUF rows of Q and K are permuted for interleaved RoPE */
    bool tied_default;          /* head = embedding when the config is silent */
    uint32_t bias_roles;        /* bit per role: the family's files always hold its ".bias" */
    struct arch_names names;
    const char *ignored[ARCH_MAX_IGNORED]; /* suffixes of file tensors that carry no weights: causal
                                              masks and frequencies that old checkpoints saved */
};

/* Row by config.json model_type / by GGUF general.architecture; an unknown name is UNSUPPORTED and
 * the message lists the known ones. */
enum status arch_by_model_type(const char *model_type, const struct arch **out,
                               struct error *err) MUST_USE;
enum status arch_by_gguf_name(const char *name, const struct arch **out,
                              struct error *err) MUST_USE;
/* The table, for `info`. */
const struct arch *arch_table(uint32_t *count);

#endif
