/* isa_int.h - private to src/tensor: the tables that select.c chooses from. */
#ifndef LLMSCHED_TENSOR_ISA_INT_H
#define LLMSCHED_TENSOR_ISA_INT_H

#include "tensor/tensor.h"

/* A new instruction set: one file isa_<name>.c, one line here, one row in select.c. */
extern const struct tensor_ops tensor_ops_reference;
#if defined(__x86_64__)
extern const struct tensor_ops tensor_ops_avx2;
extern const struct tensor_ops tensor_ops_avx512;
extern const struct tensor_ops tensor_ops_avx512_vnni;
extern const struct tensor_ops tensor_ops_avx512_bf16;
#endif

#endif
