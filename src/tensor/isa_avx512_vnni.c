/*
 * isa_avx512_vnni.c - AVX-512 with VNNI: int8 in fours. All else is in vec_avx512_int.h and
 * simd_ops_int.h.
 *
 * Compiled with its own flags (CMakeLists.txt) and entered only after select.c asked the CPU.
 */
#include "tensor/isa_int.h"

#if defined(__x86_64__)
#include "tensor/vec_avx512_int.h"

#include "tensor/simd_ops_int.h"

const struct tensor_ops tensor_ops_avx512_vnni = SIMD_OPS_TABLE("avx512-vnni");

#else
typedef int isa_avx512_vnni_is_empty;
#endif
